"""Elements that are tables: every code against ml_dtypes; bodies in three executors, to the bit."""

import ml_dtypes
import numpy as np
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backends import reference
from backends.ort.session import Level, Session
from backends.torch import Executor
from ir import formats, ops
from ir.edit import Edit
from ir.elements import element
from ir.errors import PipelineError
from ir.graph import OPSET, Graph
from ir.qtype import QType

TYPES = {
    "e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2, "e2m1": ml_dtypes.float4_e2m1fn,
    "e3m2": ml_dtypes.float6_e3m2fn, "e2m3": ml_dtypes.float6_e2m3fn,
}  # fmt: skip
NAMES = [*TYPES, "e1m1", "e1m2", "e3m0", "e2m2", "e3m4", "nf4", "log2u3", "logsqrt2u4"]


@pytest.mark.parametrize("name", TYPES)
def test_every_code_means_what_ml_dtypes_says(name):
    table, kind = element(name), np.dtype(TYPES[name])
    codes = np.arange(1 << table.bits, dtype=np.uint8)
    wanted = codes.view(kind).astype(np.float32)
    assert table.values.tobytes() == wanted.tobytes() or (
        np.array_equal(table.values, wanted, equal_nan=True)
        and np.array_equal(np.signbit(table.values), np.signbit(wanted) | (table.values < 0))
        and np.isnan(wanted).any()
    )


@pytest.mark.parametrize("name", TYPES)
def test_rounding_is_that_of_ml_dtypes_ties_included(name):
    table = element(name)
    levels = table.levels.astype(np.float64)
    ties = ((levels[1:] + levels[:-1]) / 2).astype(np.float32)
    around = [np.nextafter(ties, np.float32(s * np.inf)) for s in (-1, 1)]
    x = np.concatenate([ties, *around, table.levels])
    wanted = x.astype(TYPES[name]).astype(np.float32)
    np.testing.assert_array_equal(table.values[table.nearest(x)], wanted)
    assert table.values[table.nearest(np.float32([1e9, -1e9]))].tolist() == [table.top, -table.top]


@pytest.mark.parametrize("name", NAMES)
@given(arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-40, 40, width=32)))
def test_nearest_has_the_least_distance(name, x):
    """By brute force; logarithms in their exponents."""
    table = element(name)
    found = table.values[table.nearest(x)].astype(np.float64)
    if name.startswith("log"):
        kept = x > table.levels[1] * 0.99
        x, found, levels = np.log2(x[kept]), np.log2(found[kept]), np.log2(table.levels[1:])
    else:
        levels = table.levels
    least = np.abs(x[:, None].astype(np.float64) - levels).min(1, initial=np.inf)
    np.testing.assert_allclose(np.abs(x - found), least, atol=2e-6)


@pytest.mark.parametrize("name", ["e9m0", "e5m3", "e1m0", "log2u7", "nf5", "i4", "t2"])
def test_other_names_are_no_tables(name):
    assert element(name) is None


def graph_of(qtype, x, scale):
    value = onnx_ir.val("x", onnx_ir.DataType.FLOAT, x.shape)
    made = onnx_ir.Graph([value], [], nodes=[], opset_imports={"": OPSET}, name="g")
    graph = Graph(made, ir_version=13)
    edit = Edit(graph)
    part = edit.constant(np.asarray(scale), "part")
    encode = edit.quant("Encode", qtype, [value, part], like="x")
    decode = edit.quant("Decode", qtype, [encode.outputs[0], part], like="x", after=encode)
    graph.graph.outputs.append(decode.outputs[0])
    ops.define(graph)
    return graph


@pytest.mark.parametrize("layout", ["0*f32", "0x1*f16", "4x1*e8m0", "3x1*e4m3", "1x1*bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_bodies_agree_with_the_pure_functions_to_the_bit(name, layout):
    qtype = QType.parse(f"{name}@{layout}")
    table = element(name)
    size = -(-len(table.levels) // 4) * 4
    x = np.resize(np.concatenate([table.levels, table.thresholds]), (size, 4)).astype(np.float32)
    scale = np.asarray(formats.scale_and_zero(-1, np.float32(table.top), qtype)[0])
    scale = np.full(qtype.scale_shape(x.shape), scale, scale.dtype)
    codes = formats.encode(x, scale, None, qtype)
    assert set(codes.ravel().tolist()) == set(table.order.tolist())
    wanted = formats.decode(codes, scale, None, qtype)
    graph = graph_of(qtype, x, scale)
    name = graph.graph.outputs[0].name
    runs = [Session(graph, level=lv, threads=1).run({"x": x})[name] for lv in Level]
    runs += [reference.run(graph, {"x": x})[name], Executor(graph).run({"x": x})[name].numpy()]
    for run in runs:
        assert np.asarray(run).tobytes() == wanted.tobytes()


def test_scales_of_e8m0_follow_the_ocp_rule():
    qtype = QType.parse("e2m1@32x1*e8m0")
    reach = np.float64([0.99, 1, 4, 6, 7.9, 8, 0])
    scale, _ = formats.scale_and_zero(-reach, 0 * reach, qtype)
    wanted = [0.125, 0.25, 1, 1, 1, 2, 2.0**-126]
    np.testing.assert_array_equal(scale.astype(np.float64)[:6], wanted[:6])
    assert 0 < float(scale[6]) < 1e-30


def test_codes_lie_in_the_next_wider_container():
    kinds = {"e2m1": "u4", "nf4": "u4", "e3m2": "u8", "e4m3": "u8", "log2u3": "u4", "e1m1": "u4"}
    assert {name: QType(name).container for name in kinds} == kinds


def test_integers_keep_their_grid():
    qtype = QType.parse("i4@0*f32")
    assert formats.levels(qtype).tolist() == list(range(-8, 8))
    assert formats.round_to_grid(np.float32([2.5, 9, -3.6]), qtype).tolist() == [2, 7, -4]


@pytest.mark.parametrize("text", ["e2m1@0*f32+u4", "t2@0*f32", "e2m1@16x1*e4m3*f32", "nf4@0*i8"])
def test_what_has_no_meaning_is_refused(text):
    with pytest.raises(PipelineError):
        formats.levels(QType.parse(text))
