"""Small coded graphs: one linear layer with chosen formats around it."""

from __future__ import annotations

import numpy as np
import onnx_ir

from ir import ops
from ir.edit import Edit
from ir.formats import integer
from ir.graph import OPSET, Graph, Node, Value
from ir.qtype import QType

U8 = "u8@0*f32+u8"
I8 = "i8@0x1*f32"


class Coded:
    """A graph under construction: `x` is its float input."""

    def __init__(self, shape: list[int]) -> None:
        x = onnx_ir.val("x", onnx_ir.DataType.FLOAT, shape)
        self.graph = Graph(
            onnx_ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="g"), ir_version=13
        )
        self.edit, self.x, self._last = Edit(self.graph), x, None

    def op(self, op: str, *inputs: Value | None, like: str = "v", **attributes) -> Value:
        node = self.edit.node(op, inputs, like=like, after=self._last, **attributes)
        return self._put(node).outputs[0]

    def _put(self, node: Node) -> Node:
        if self._last is None and node.graph is not None and node.graph[0] is not node:
            raise AssertionError("the first node must come first")
        self._last = node
        return node

    def quant(self, op: str, qtype: str, *inputs: Value, like: str = "v") -> tuple[Value, ...]:
        node = self.edit.quant(op, QType.parse(qtype), list(inputs), like=like, after=self._last)
        return tuple(self._put(node).outputs)

    def const(self, data, name: str) -> Value:
        return self.edit.constant(np.asarray(data), name)

    def coded(self, value: Value, scale: float, zero: int | None, qtype: str = U8) -> Value:
        """Encode and Decode with a known scale."""
        parts = self.parts(scale, zero, qtype)
        (codes,) = self.quant("Encode", qtype, value, *parts)
        return self.quant("Decode", qtype, codes, *parts)[0]

    def parts(self, scale: float, zero: int | None, qtype: str) -> list[Value]:
        found = [self.const(np.float32(scale), "scale")]
        if zero is not None:
            kind = integer.dtype(str(QType.parse(qtype).zero))
            found.append(self.const(np.asarray(zero, kind), "zero"))
        return found

    def dynamic(self, value: Value, qtype: str = U8) -> Value:
        """Encode and Decode with a scale of the moment."""
        parts = self.quant("Scale", qtype, value)
        (codes,) = self.quant("Encode", qtype, value, *parts)
        return self.quant("Decode", qtype, codes, *parts)[0]

    def weight(self, codes: np.ndarray, scale, qtype: str, zero=None) -> Value:
        """Decode of stored codes; scale in the QType's own shape, or a number for all."""
        parsed = QType.parse(qtype)
        codes = codes.astype(integer.dtype(parsed.element))
        shape = parsed.scale_shape(codes.shape)
        kind = np.float16 if parsed.scales[0] == "f16" else np.float32
        parts = [self.const(np.broadcast_to(np.asarray(scale, kind), shape).copy(), "w.scale")]
        if zero is not None:
            held = np.broadcast_to(zero, shape).astype(integer.dtype(str(parsed.zero)))
            parts.append(self.const(held, "w.zero"))
        return self.quant("Decode", qtype, self.const(codes, "w.codes"), *parts, like="w")[0]

    def done(self, *outputs: Value) -> Graph:
        for value in outputs:
            value.type = value.type or onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
            self.graph.graph.outputs.append(value)
        ops.define(self.graph)
        return self.graph


def wild(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Codes over all of i8: they break the pair rule everywhere."""
    return np.random.default_rng(seed).integers(-127, 128, shape)


def tame(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Codes that no kernel can saturate on."""
    return np.random.default_rng(seed).integers(-64, 65, shape)


def steps(shape: tuple[int, ...], scale: float, zero: int, seed: int = 0) -> np.ndarray:
    """Inputs that lie exactly on the codes, so that no rounding can differ."""
    codes = np.random.default_rng(seed).integers(0, 256, shape)
    return ((codes - zero) * np.float32(scale)).astype(np.float32)
