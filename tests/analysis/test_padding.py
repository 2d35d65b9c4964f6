"""Inputs that mark padding are found by what they act on, whatever their names."""

import numpy as np
import onnx.parser

import ir
from ir.analysis.masks import padding_inputs
from passes.padding import valid_rows, without_padding

HEADER = '<ir_version: 10, opset_import: ["": 21]>\n'
ATTENTION = """
  g (float[B,T,4] h, float[B,T] marks{more}) => (float[B,T,4] y)
  <float one = {{1.0}}, float low = {{-10000.0}}, int64[1] axis = {{1}}> {{
    gap = Sub(one, marks)
    mask = Mul(gap, low)
    row = Unsqueeze(mask, axis)
    k = Transpose<perm = [0, 2, 1]>(h)
    s = MatMul(h, k)
    held = Add(s, row)
    p = Softmax(held)
    {last}
  }}
"""


def captured(last: str, more: str = ""):
    return ir.capture(onnx.parser.parse_model(HEADER + ATTENTION.format(last=last, more=more)))


def test_the_input_of_the_mask_is_found_and_data_is_not():
    assert padding_inputs(captured("y = MatMul(p, h)")) == ["marks"]


def test_an_input_that_acts_past_the_mask_too_is_no_padding():
    text = "a = MatMul(p, h)\n two = Unsqueeze(marks, axis)\n t = Transpose<perm=[0,2,1]>(two)\n"
    assert padding_inputs(captured(text + "y = Mul(a, t)")) == []


def test_an_input_that_nothing_reads_is_no_padding():
    assert padding_inputs(captured("y = MatMul(p, h)", ", float[B,T] other")) == ["marks"]


def test_rows_of_padding_are_left_out():
    graph = captured("y = MatMul(p, h)")
    marks = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    rows = valid_rows(graph, {"marks": marks})
    assert rows is not None
    hidden = np.arange(12).reshape(2, 3, 2)
    assert without_padding(hidden, rows).tolist() == [[0, 1], [2, 3], [6, 7]]
    assert without_padding(hidden[:, :2], rows) is not None
    assert without_padding(hidden[:, :2], rows).shape == (2, 2, 2)


def test_marks_of_other_numbers_say_nothing():
    graph = captured("y = MatMul(p, h)")
    assert valid_rows(graph, {"marks": np.array([[0.5, 1.0]], np.float32)}) is None
    assert valid_rows(graph, {"marks": np.zeros((1, 2), np.float32)}) is None
