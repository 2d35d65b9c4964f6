"""Time of every cleanup pass grows with the graph, not faster."""

import math
import time

import numpy as np
import onnx_ir
import pytest

from ir.edit import Edit
from passes.cleanup.fold_norm import FoldNorm
from passes.core import Ctx

from .test_cleanup import CLEAN


def transformer(layers):
    """Blocks as exporters write them: norm, linear behind Transpose, sizes computed, residual."""
    width, nodes, constants = 8, [], []
    rng = np.random.default_rng(0)

    def value(array, name):
        made = onnx_ir.val(name, const_value=onnx_ir.tensor(array, name=name))
        made.dtype, made.shape = made.const_value.dtype, made.const_value.shape
        constants.append(made)
        return made

    def op(kind, *inputs, **attributes):
        node = onnx_ir.node(kind, inputs, attributes)
        nodes.append(node)
        return node.outputs[0]

    x = source = onnx_ir.val("x", onnx_ir.DataType.FLOAT, onnx_ir.Shape(["b", "s", width]))
    zero, one = value(np.array(0), "zero"), value(np.array(1), "one")
    axis = value(np.array([0]), "axis")
    heads = value(np.array([2, width // 2]), "heads")
    for i in range(layers):
        h = op("LayerNormalization", x, value(np.ones(width, np.float32), f"g{i}"), axis=-1)
        weight = value(rng.normal(size=(width, width)).astype(np.float32), f"w{i}")
        h = op("MatMul", h, op("Transpose", weight, perm=[1, 0]))
        shape = op("Shape", h)
        sizes = [op("Unsqueeze", op("Gather", shape, at, axis=0), axis) for at in (zero, one)]
        h = op("Reshape", h, op("Concat", *sizes, heads, axis=0))
        h = op("Transpose", op("Identity", h), perm=[0, 2, 1, 3])
        h = op("Transpose", op("Relu", h), perm=[0, 2, 1, 3])
        h = op("Reshape", h, op("Concat", *sizes, value(np.array([width]), f"c{i}"), axis=0))
        x = op("Add", h, x)
    graph = onnx_ir.Graph(
        [source], [x], nodes=nodes, initializers=constants, opset_imports={"": 25}, name="g"
    )
    return onnx_ir.Model(graph, ir_version=13)


def seconds(nodes):
    """CPU seconds of each pass on a graph of about so many nodes, in the order of the recipe."""
    graph, taken = transformer(nodes // 16), {}
    for step in (FoldNorm(), *CLEAN):
        ctx = Ctx(Edit(graph, str(step)), target=None, rng=np.random.default_rng(0))  # type: ignore
        start = time.process_time()
        step.run(graph, ctx)
        taken[step.name] = taken.get(step.name, 0) + time.process_time() - start
    return taken


@pytest.mark.slow
def test_time_is_linear():
    small, large = (sum(seconds(n).values()) for n in (5_000, 25_000))
    assert math.log(large / small) / math.log(5) < 1.25


def test_a_thousand_nodes_take_little():
    assert sum(seconds(1_000).values()) < 1.0
