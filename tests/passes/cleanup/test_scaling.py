"""The work of every cleanup pass grows with the graph, not faster."""

import numpy as np
import onnx_ir

from ir.edit import Edit
from passes.cleanup.fold_norm import FoldNorm
from passes.core import Ctx
from tests.work import calls, exponent

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


def clean(graph):
    """Every pass once, in the order of the recipe."""
    for step in (FoldNorm(), *CLEAN):
        ctx = Ctx(Edit(graph, str(step)), target=None, rng=np.random.default_rng(0))  # type: ignore
        step.run(graph, ctx)


def test_work_is_linear():
    few, many = (calls(clean, transformer(n)) for n in (60, 300))
    assert exponent((60, 300), (few, many)) < 1.03
