"""Keep equal constants, and nodes that compute the same, once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import onnx_ir

from ir.graph import Graph, Node, Value, graphs
from passes.core import Ctx, Effect, Pass, register

from .evaluate import RANDOM
from .walk import has_body

SAMPLE = 4096
"""Bytes looked at before two constants of one type and shape are compared in full."""


@register
@dataclass(frozen=True)
class Dedup(Pass):
    """Keep one of several equal constants, and one of several nodes that compute the same.

    rewrite:  a = Relu(x); b = Relu(x); y = Add(a, b)
              -->
              a = Relu(x); y = Add(a, a)
    shapes:   any; constants are equal when type, shape and bytes are
    options:  none
    error:    exact. Random nodes, nodes with bodies and graph outputs keep their own
    raises:   nothing
    source:   common subexpressions: Aho, Sethi, Ullman, Compilers (1986), 9.2
    """

    name = "dedup"
    effect = Effect.EXACT
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        _merge_constants(graph, ctx)
        seen: dict[onnx_ir.Graph, dict[Hashable, Node]] = {}
        for scope in graphs(graph):
            nodes = seen.setdefault(scope, {})
            for node in scope:
                _merge_node(node, nodes, ctx)


def _merge_constants(graph: Graph, ctx: Ctx) -> None:
    """Constants of the main graph, which every body sees; and within each body its own."""
    outer: dict[Hashable, list[Value]] = {}
    functions = {f.graph for f in graph.functions.values()}
    functions |= {body for top in functions for body in top.subgraphs()}
    for scope in graphs(graph):
        if scope in functions:
            continue
        known = outer if scope is graph.graph else {k: list(v) for k, v in outer.items()}
        for value in list(scope.initializers.values()):
            if value.is_graph_input() or value.is_graph_output() or value.const_value is None:
                continue
            kept = known.setdefault(_sample(value.const_value), [])
            twin = next((k for k in kept if _equal(k.const_value, value.const_value)), None)  # type: ignore
            if twin is None:
                kept.append(value)
                continue
            ctx.did(value)
            ctx.edit.replace(value, twin)
            ctx.edit.drop_constant(value)


def _sample(tensor: onnx_ir.TensorProtocol) -> Hashable:
    """Type, shape and a digest of a few elements: cheap for any size, equal for equal constants."""
    if isinstance(tensor, onnx_ir.LazyTensor):
        return (tensor.dtype, tuple(tensor.shape), None)
    array = tensor.numpy()
    if tensor.dtype == onnx_ir.DataType.STRING:
        return (tensor.dtype, array.shape, tuple(array.flat))
    step = max(array.size * array.itemsize // SAMPLE, 1)
    digest = hashlib.blake2b(_bits(array.flat[::step]), digest_size=16).digest()
    return (tensor.dtype, array.shape, digest)


def _bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _equal(a: onnx_ir.TensorProtocol, b: onnx_ir.TensorProtocol) -> bool:
    """Whether two constants of one sample are the same bits (a zero's sign and NaNs count)."""
    if a is b:
        return True
    if isinstance(a, onnx_ir.LazyTensor) or isinstance(b, onnx_ir.LazyTensor):
        return False
    left, right = a.numpy(), b.numpy()
    if left.dtype == object:
        return bool((left == right).all())
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}.get(left.itemsize)
    if unsigned is None:
        return left.tobytes() == right.tobytes()
    return bool(np.array_equal(left.view(unsigned), right.view(unsigned)))


def _merge_node(node: Node, seen: dict[Hashable, Node], ctx: Ctx) -> None:
    if node.op_type in RANDOM or has_body(node) or node.op_type == "Constant":
        return
    key = _key(node)
    first = seen.setdefault(key, node)
    if first is node:
        return
    if any(value.is_graph_output() for value in node.outputs):
        return
    ctx.did(node)
    for value, twin in zip(node.outputs, first.outputs, strict=True):
        ctx.edit.reuse(value, twin)
    ctx.edit.remove(node)


def _key(node: Node) -> Hashable:
    return (
        node.op_identifier(),
        tuple(id(value) for value in node.inputs),
        tuple(bool(value.name) for value in node.outputs),
        tuple(sorted(_attribute(a) for a in node.attributes.values())),
    )


def _attribute(attribute: onnx_ir.Attr) -> tuple[str, str]:
    if attribute.type == onnx_ir.AttributeType.TENSOR and not attribute.is_ref():
        tensor = attribute.as_tensor()
        return (
            attribute.name,
            f"{tensor.dtype}{tensor.shape}{hashlib.blake2b(tensor.tobytes()).hexdigest()}",
        )
    return attribute.name, f"{attribute.type}{attribute.ref_attr_name}{attribute.value!r}"
