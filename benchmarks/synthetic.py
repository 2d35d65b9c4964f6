"""Decoders of any number of nodes and of hardly any width, as the TorchScript exporter writes them.

A layer is 89 nodes: RMSNorm spelt out, weights behind Transpose, shape chains of Constant, Shape,
Gather, Unsqueeze and Concat before every Reshape, attention with an additive mask, SwiGLU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, HIDDEN = 16, 2, 32
NODES_PER_LAYER = 89


class Writer:
    """Collects nodes and initializers; every method returns the name of the value that it makes."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"/{kind}_{len(self.nodes)}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name[:-9], **attributes))
        return name

    def constant(self, value: ArrayLike) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def weight(self, *shape: int) -> str:
        array = self.rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        transposed = self.op("Transpose", self.weight(outputs, inputs), perm=[1, 0])
        return self.op("MatMul", x, transposed)

    def norm(self, x: str) -> str:
        square = self.op("Pow", x, self.constant(np.float32(2)))
        mean = self.op("ReduceMean", square, axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.constant(np.float32(1e-5))))
        return self.op("Mul", self.op("Div", x, root), self.weight(WIDTH))

    def reshape(self, x: str, tail: list[int]) -> str:
        """To [batch, length, *tail], the first two dimensions read off `x`."""
        shape = self.op("Shape", x)
        parts = [self.op("Gather", shape, self.constant(np.int64(axis))) for axis in (0, 1)]
        axes = self.constant(np.array([0]))
        ends = [self.op("Unsqueeze", part, axes) for part in parts]
        return self.op(
            "Reshape", x, self.op("Concat", *ends, self.constant(np.array(tail)), axis=0)
        )

    def heads(self, x: str, perm: list[int]) -> str:
        split = self.reshape(self.linear(x, WIDTH, WIDTH), [HEADS, WIDTH // HEADS])
        return self.op("Transpose", split, perm=perm)

    def layer(self, x: str) -> str:
        y = self.norm(x)
        q, v = self.heads(y, [0, 2, 1, 3]), self.heads(y, [0, 2, 1, 3])
        scores = self.op("MatMul", q, self.heads(y, [0, 2, 3, 1]))
        scores = self.op("Div", scores, self.constant(np.float32((WIDTH / HEADS) ** 0.5)))
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", scores, "mask"), axis=-1), v)
        merged = self.reshape(self.op("Transpose", mixed, perm=[0, 2, 1, 3]), [WIDTH])
        x = self.op("Add", x, self.linear(merged, WIDTH, WIDTH))
        y = self.norm(x)
        gate = self.linear(y, WIDTH, HIDDEN)
        gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        wide = self.op("Mul", gate, self.linear(y, WIDTH, HIDDEN))
        return self.op("Add", x, self.linear(wide, HIDDEN, WIDTH))


def decoder(layers: int, seed: int = 0) -> onnx.ModelProto:
    """x f32[batch, length, 16] and mask f32[length, length] to y, of 89 nodes a layer."""
    writer = Writer(seed)
    value = "x"
    for _ in range(layers):
        value = writer.layer(value)
    writer.nodes.append(helper.make_node("Identity", [value], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", WIDTH])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["length", "length"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "length", WIDTH])
    graph = helper.make_graph(writer.nodes, "decoder", [x, mask], [y], writer.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(n: int, length: int = 8, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """n feeds of one sequence each, with the causal mask."""
    rng = np.random.default_rng(seed)
    later = np.triu(np.ones((length, length), np.float32), 1)
    mask = later * np.finfo(np.float32).min
    return [
        {"x": rng.standard_normal((1, length, WIDTH), np.float32), "mask": mask} for _ in range(n)
    ]
