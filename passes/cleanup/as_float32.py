"""Half and double precision become float32, the one type that the kernels of every target have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir
from onnx_ir import AttributeType, DataType

from ir.errors import PassError
from ir.graph import Graph, Node, Value, constant, graphs, nodes
from passes.core import Ctx, Effect, Pass, register
from passes.sites import WITH_WEIGHTS

HALVES = frozenset({DataType.FLOAT16, DataType.BFLOAT16})
TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "stash_type", "softmax_precision")
"""Attributes that name an element type."""


@register
@dataclass(frozen=True)
class AsFloat32(Pass):
    """Compute in float32 what the model computes in float16, bfloat16 or float64.

    rewrite:  y = MatMul(x, w)                          all f16
              -->
              y = Cast(MatMul(Cast(x), w'))             x and y f16 as before, w' and the rest f32
    shapes:   any; inputs and outputs keep their types
    options:  none. float64 is narrowed only where a layer has float64 weights: a few numbers in
              double precision (times, sizes) need it
    error:    that of the narrower type goes; float64 loses what is beyond 24 bits
    raises:   PassError for BitCast of such a type
    source:   IEEE 754
    """

    name = "as_float32"
    effect = Effect.LOSSY
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        kinds = HALVES | ({DataType.DOUBLE} if _double_layers(graph) else set())
        inputs = [v for v in graph.graph.inputs if v.dtype in kinds]
        for scope in graphs(graph):
            _retype(scope, kinds, ctx, main=scope is graph.graph)
        for value in inputs:
            _cast_input(value, ctx)
            ctx.did(value)
        for value in list(graph.graph.outputs):
            if value.dtype in kinds and not value.is_graph_input() and value not in inputs:
                _cast_output(value, ctx)


def narrow(numbers: np.ndarray) -> np.ndarray:
    """As float32; finite numbers stay finite."""
    if numbers.dtype != np.float64:
        return numbers.astype(np.float32)
    reach = float(np.finfo(np.float32).max)
    return np.where(np.isfinite(numbers), np.clip(numbers, -reach, reach), numbers).astype("f4")


def _double_layers(graph: Graph) -> bool:
    return any(
        tensor.dtype == DataType.DOUBLE and len(tensor.shape) > 1
        for node in nodes(graph) if node.op_type in WITH_WEIGHTS and not node.domain
        for value in node.inputs[:3] if (tensor := constant(value)) is not None
    )  # fmt: skip


def _retype(scope: onnx_ir.Graph, kinds, ctx: Ctx, *, main: bool) -> None:
    """Constants, attributes and declared types of one graph; the main graph's border stays."""
    for value in list(getattr(scope, "initializers", {}).values()):
        if value.dtype in kinds and value.const_value is not None:
            ctx.edit.retensor(value, narrow(_wide(value.const_value.numpy())))
            ctx.did(value)
    for node in scope:
        _attributes(node, kinds, ctx)
    for value in _inner_values(scope, main):
        if value.dtype in kinds:
            ctx.edit.retype(value, DataType.FLOAT)


def _wide(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float32) if numbers.dtype == ml_dtypes.bfloat16 else numbers


def _inner_values(scope: onnx_ir.Graph, main: bool) -> Iterator[Value]:
    if not main:
        yield from scope.inputs
    border = set(scope.outputs) if main else set()
    for node in scope:
        yield from (value for value in node.outputs if value not in border)


def _attributes(node: Node, kinds, ctx: Ctx) -> None:
    for name, found in list(node.attributes.items()):
        if found.is_ref():
            continue
        if name in TYPE_ATTRIBUTES and found.type == AttributeType.INT and found.value in kinds:
            if node.op_type == "BitCast":
                raise PassError("bits of a narrow float are read as such", at=node,
                                hint="keep this model in its own type")  # fmt: skip
            ctx.edit.attribute(node, name, int(DataType.FLOAT))
        elif found.type == AttributeType.TENSOR and found.as_tensor().dtype in kinds:
            numbers = narrow(_wide(found.as_tensor().numpy()))
            ctx.edit.attribute(node, name, onnx_ir.tensor(numbers))


def _cast_input(value: Value, ctx: Ctx) -> None:
    uses = [(use.node, use.idx) for use in value.uses()]
    if not uses:
        return
    made = ctx.edit.node("Cast", [value], like=f"{value.name}.f32", to=int(DataType.FLOAT))
    wide = made.outputs[0]
    wide.type, wide.shape = onnx_ir.TensorType(DataType.FLOAT), value.shape
    for node, index in uses:
        ctx.edit.set_input(node, index, wide)


def _cast_output(value: Value, ctx: Ctx) -> None:
    """The graph returns a Cast of the value, under the value's name and of its type."""
    kind, maker = value.dtype, value.producer()
    if kind is None or maker is None:
        return
    made = ctx.edit.node("Cast", [value], like=value.name or "y", after=maker, to=int(kind))
    ctx.edit.output_instead(value, made.outputs[0])
    ctx.edit.retype(value, DataType.FLOAT)
