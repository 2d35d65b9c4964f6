"""Evaluate what does not depend on the inputs, shape arithmetic on unknown sizes included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir

from ir.graph import Graph, Node, Value, array, attribute, constant, graphs
from passes.core import Ctx, Effect, Pass, register

from .branches import inline
from .dims import Dims
from .evaluate import LAYOUT, NOT_CONSTANT, cast, dtype_of, evaluate, layout, result_bytes
from .partial import simplify_shape_input
from .walk import drop_unread, has_body, has_reference, opset

EAGER = 1 << 16
"""Bytes up to which a weight behind a Transpose, Cast, ... is laid out at once, not when read."""


@register
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace what is computed from constants by the result.

    rewrite:  w: [N, K];  t = Transpose(w);  y = MatMul(x, t)
              -->
              t: [K, N] constant;            y = MatMul(x, t)
    shapes:   Shape, Gather, Concat, ... of dimensions that are known fold to numbers; a Reshape
              target with unknown dimensions becomes one constant of 0 (same axis), -1 (the only
              other) and sizes; an Expand or Slice that repeats its input's own sizes likewise
    options:  limit, bytes by which the constants of one fold may grow. Layout ops and Cast of one
              weight fold at any size: they stay a view, or are computed when the weight is read
    error:    exact. Codes stay codes: QuantizeLinear and DequantizeLinear are not folded
    raises:   nothing; skips a fold above the limit, and one whose evaluation fails
    source:   Aho, Sethi, Ullman, Compilers (1986), 9.9
    """

    name = "fold_constants"
    effect = Effect.EXACT
    optional = True

    limit: int = 1 << 20

    def run(self, graph: Graph, ctx: Ctx) -> None:
        functions = {f.graph for f in graph.functions.values()}
        functions |= {body for top in functions for body in top.subgraphs()}
        dims = Dims()
        for scope in list(graphs(graph)):
            for node in scope:
                if node.graph is scope:
                    self._visit(node, ctx, dims, inside_function=scope in functions)

    def _visit(self, node: Node, ctx: Ctx, dims: Dims, *, inside_function: bool) -> None:
        if node.op_type == "Constant" and not node.domain:
            if not inside_function:
                _lift(node, ctx)
            return
        if node.op_type == "If" and not node.domain and inline(node, ctx):
            return
        dims.learn(node)
        if self._fold(node, ctx, dims):
            return
        if simplify_shape_input(node, ctx, dims):
            ctx.did(node)
        if not inside_function:
            for value in node.outputs:
                dims.write(value)

    def _fold(self, node: Node, ctx: Ctx, dims: Dims) -> bool:
        """Whether the node is gone, its outputs constants."""
        if node.domain or node.op_type in NOT_CONSTANT or has_body(node) or has_reference(node):
            return False
        if len(node.outputs) == 1 and node.outputs[0].is_graph_output() and _is_settled(node):
            return False
        tensors = _layout_result(node) or self._evaluated(node, ctx) or _known_numbers(node, dims)
        if tensors is None:
            return False
        ctx.did(node)
        inputs = list(node.inputs)
        for value, tensor in zip(node.outputs, tensors, strict=True):
            _settle(value, tensor, node, ctx)
        ctx.edit.remove(node)
        drop_unread(ctx.edit, inputs)
        return True

    def _evaluated(self, node: Node, ctx: Ctx) -> list[onnx_ir.TensorProtocol] | None:
        if not node.inputs or any(v is not None and constant(v) is None for v in node.inputs):
            return None
        arrays = [array(value) for value in node.inputs]
        try:
            size = result_bytes(node, arrays)
            freed = sum(a.nbytes for a in arrays if a is not None)
            if size is None or size > freed + self.limit:
                shown = "not known before it is computed" if size is None else f"{size} bytes"
                ctx.skip(node, f"constant, but its result is {shown}; raise limit to fold it")
                return None
            results = evaluate(node, arrays, opset(ctx.edit.graph))
        except Exception as error:  # numpy and onnx.reference raise anything; the node stays
            ctx.skip(node, f"constant, but its evaluation failed: {error}")
            return None
        return [onnx_ir.tensor(np.array(result, order="C")) for result in results]


def _is_settled(node: Node) -> bool:
    return node.op_type == "Identity" and constant(node.inputs[0]) is not None


def _lift(node: Node, ctx: Ctx) -> None:
    """A Constant node becomes an initializer."""
    value = node.outputs[0]
    tensor = onnx_ir.convenience.get_const_tensor(value)
    if tensor is None or value.is_graph_output():
        return
    ctx.did(node)
    ctx.edit.becomes(value, tensor)
    ctx.edit.remove(node)


def _settle(value: Value, tensor: onnx_ir.TensorProtocol, node: Node, ctx: Ctx) -> None:
    """Give a value's readers the constant; a graph output stays a computed value, by Identity."""
    if not value.is_graph_output():
        if value.uses():
            ctx.edit.becomes(value, tensor)
        return
    held = ctx.edit.constant(tensor, f"{value.name}.value", at=node)
    copy = ctx.edit.node("Identity", [held], like=f"{value.name}", before=node)
    ctx.edit.replace(value, copy.outputs[0])


def _layout_result(node: Node) -> list[onnx_ir.TensorProtocol] | None:
    """A big weight behind a LAYOUT op: a view where numpy has one, else computed when read."""
    source = constant(node.inputs[0]) if node.op_type in LAYOUT and node.inputs else None
    rest = [array(value) for value in node.inputs[1:]]
    if source is None or source.nbytes <= EAGER or any(a is None for a in rest):
        return None
    if source.dtype == onnx_ir.DataType.STRING:
        return None
    arrays = [None, *rest]
    if node.op_type == "Cast":
        dtype = onnx_ir.DataType(attribute(node, "to"))
        if not (
            source.dtype.is_floating_point() and dtype.is_floating_point() and dtype.bitwidth >= 16
        ):
            return None
        return [_later(lambda: cast(source.numpy(), dtype_of(dtype)), dtype, source.shape.numpy())]
    dummy = np.broadcast_to(np.zeros((), np.int8), source.shape.numpy())
    shape = layout(node, dummy, arrays).shape
    if isinstance(source, onnx_ir.LazyTensor) or source.dtype.bitwidth < 8:
        frozen = _Frozen(node)
        return [_later(lambda: layout(frozen, source.numpy(), arrays), source.dtype, shape)]  # type: ignore
    whole = source.numpy()
    view = layout(node, whole, arrays)
    if np.may_share_memory(view, whole):
        return [onnx_ir.Tensor(view, source.dtype)]
    frozen = _Frozen(node)
    return [_later(lambda: layout(frozen, source.numpy(), arrays), source.dtype, shape)]  # type: ignore


class _Frozen:
    """What `layout` needs of a node, without keeping its graph alive."""

    def __init__(self, node: Node) -> None:
        self.op_type = node.op_type
        self.attributes = dict(node.attributes)


def _later(compute, dtype: onnx_ir.DataType, shape) -> onnx_ir.LazyTensor:
    return onnx_ir.LazyTensor(
        lambda: onnx_ir.Tensor(compute(), dtype), dtype=dtype, shape=onnx_ir.Shape(shape)
    )


def _known_numbers(node: Node, dims: Dims) -> list[onnx_ir.TensorProtocol] | None:
    """The result of shape arithmetic whose every number is known."""
    value = node.outputs[0]
    if len(node.outputs) != 1 or value.is_graph_output():
        return None
    numbers = dims.numbers(value)
    if numbers is None or not all(isinstance(n, int) for n in numbers.flat):
        return None
    dtype = value.dtype or onnx_ir.DataType.INT64
    return [onnx_ir.tensor(np.array(numbers.tolist(), dtype.numpy()).reshape(numbers.shape))]
