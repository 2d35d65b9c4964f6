"""Thin helpers over onnx_ir: walking, constants, names. `Graph` *is* `onnx_ir.Model`."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir

Graph = onnx_ir.Model
Node = onnx_ir.Node
Value = onnx_ir.Value

OPSET = 25
"""The working opset: every standard op and type our formats need is in it
(docs/architecture.md)."""
IR_VERSION = 13
QUANT_DOMAIN = "quant"
"""The domain of our own ops; see `ir.ops`."""
BY = "ptqc.by"
"""Node metadata: the pass, with its options, that made the node. Absent: the model's own."""
_BODIES = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)


def graphs(model: Graph) -> Iterator[onnx_ir.Graph]:
    """The main graph, every If/Loop/Scan body, and every local function's body, outermost first.

    Functions of the `quant` domain are definitions, not part of the user's model: left out.
    """
    yield model.graph
    yield from inner_graphs(model.graph)
    for function in model.functions.values():
        if function.domain != QUANT_DOMAIN:
            yield function.graph
            yield from inner_graphs(function.graph)


def inner_graphs(graph: onnx_ir.Graph) -> list[onnx_ir.Graph]:
    """Every If/Loop/Scan body inside a graph, each before those inside it.

    As `onnx_ir.Graph.subgraphs`, at a fifth of its time: passes ask for this at every step.
    """
    found: list[onnx_ir.Graph] = []
    for node in graph:
        for attribute in node.attributes.data.values():
            if attribute.type in _BODIES and not attribute.is_ref():
                one = attribute.type is onnx_ir.AttributeType.GRAPH
                for body in (attribute.value,) if one else attribute.value:
                    found += [body, *inner_graphs(body)]
    return found


def nodes(model: Graph) -> Iterator[Node]:
    """Every node of every graph of `graphs(model)`."""
    for graph in graphs(model):
        yield from graph


def constant(value: Value | None) -> onnx_ir.TensorProtocol | None:
    """The tensor behind an initializer or a Constant node, or None when the value is computed.

    An initializer that is also a graph input is only a default, hence not a constant.
    """
    if value is None or value.is_graph_input():
        return None
    if value.const_value is not None:
        return value.const_value
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return node.attributes["value"].as_tensor()
    return None


def array(value: Value | None) -> np.ndarray | None:
    """The constant's numbers (memory-mapped when external; never write into it), or None."""
    tensor = constant(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: Value | None) -> float | None:
    """The only number of a one-element constant, or None."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def rank(value: Value | None) -> int | None:
    """Number of axes, or None when unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def readers(value: Value) -> list[tuple[Node, int]]:
    """(node, input index) of every use, in a stable order."""
    return [(use.node, use.idx) for use in value.uses()]


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """The plain Python value of an attribute, or `default`."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def clone(model: Graph) -> Graph:
    """A graph of its own whose tensors are shared with the original."""
    with no_collection():
        return model.clone()


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No cyclic garbage collection: it would walk a growing graph again and again.

    Building 50,000 nodes takes a quarter less time, and time stays linear in nodes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Collect cyclic garbage a hundred times less often than Python's default.

    A large graph is millions of objects; by default looking at them all takes a third of a run.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 70_000) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Names:
    """Unique value and node names of one model; O(1) per name after one walk."""

    def __init__(self, model: Graph) -> None:
        self._taken: set[str] = set()
        for graph in graphs(model):
            self._taken.update(v.name for v in graph.inputs if v.name)
            self._taken.update(graph.initializers)
            for node in graph:
                if node.name:
                    self._taken.add(node.name)
                self._taken.update(v.name for v in node.outputs if v.name)

    def fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted.1`, `wanted.2`, ... when it is taken."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}.{number}"
        self._taken.add(name)
        return name
