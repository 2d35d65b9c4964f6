"""What an idiom is, and the small questions every recogniser asks of a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ir.graph import Node, Value, attribute, constant, rank, readers, scalar

PASSIVE = frozenset({"Cast", "Identity"})


@dataclass(frozen=True, eq=False)
class Idiom:
    """Several nodes that together are one standard op.

    kind:       the standard op (opset 25) that computes the same: LayerNormalization, Gelu, ...
                (`Identity` for a leftover that does nothing)
    nodes:      the nodes it replaces; none of their results is read elsewhere but `outputs`
    inputs:     in the order of the op's inputs; None where the exporter left a gain or bias out
    outputs:    the values it computes
    attributes: of the op, complete: `axis` and `epsilon` are never left to their defaults
    prepare:    input index -> steps (op type, argument) that bring that input into the op's layout
    extra:      what the op cannot express; a pass that does not know an entry must leave the idiom
    """

    kind: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    prepare: dict[int, tuple[tuple[str, Any], ...]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def is_op(node: Node | None, *op_types: str) -> bool:
    """Whether the node is one of these ops of the standard domain."""
    return node is not None and node.op_type in op_types and node.domain in ("", "ai.onnx")


def producer(value: Value | None, *op_types: str) -> Node | None:
    """The node that computes the value, if it is one of these standard ops."""
    node = None if value is None else value.producer()
    return node if is_op(node, *op_types) else None


def back(value: Value | None, used: list[Node]) -> Value | None:
    """The value behind Cast and Identity; the nodes passed are added to `used`."""
    while (node := producer(value, *PASSIVE)) is not None:
        used.append(node)
        value = node.inputs[0]
    return value


def origin(value: Value | None) -> Value | None:
    """The value behind Cast and Identity, for comparing only."""
    return back(value, [])


def reader(value: Value, used: list[Node], *op_types: str) -> Node | None:
    """The only reader of the value, seen through Cast and Identity, if it is one of these ops."""
    passed: list[Node] = []
    while True:
        uses = readers(value)
        nodes = {id(node): node for node, _ in uses}
        if len(nodes) != 1 or value.is_graph_output():
            return None
        node = next(iter(nodes.values()))
        if is_op(node, *op_types):
            used.extend(passed)
            return node
        if not is_op(node, *PASSIVE):
            return None
        passed.append(node)
        value = node.outputs[0]


def other(node: Node, value: Value | None) -> Value | None:
    """The operand of a two-input node that is not `value` (seen through Cast and Identity)."""
    first, second = node.inputs[:2]
    return second if origin(first) is origin(value) else first


def close(a: float | None, b: float, tolerance: float = 1e-3) -> bool:
    """Equal up to a relative tolerance that covers constants stored in half precision."""
    return a is not None and abs(a - b) <= tolerance * max(abs(b), 1e-12)


def axes_of(node: Node, behind: Value | None) -> tuple[int, ...] | None:
    """The axes of a Reduce op counted from the end (-1 is the last), or None when unknown."""
    found = attribute(node, "axes")
    if found is None and len(node.inputs) > 1:
        tensor = constant(node.inputs[1])
        found = None if tensor is None else tensor.numpy().reshape(-1).tolist()
    size = rank(behind)
    if not found or attribute(node, "keepdims", 1) != 1:
        return None
    if any(axis >= 0 for axis in found) and size is None:
        return None
    return tuple(sorted(int(a) - (size or 0) if a >= 0 else int(a) for a in found))


def trailing(axes: tuple[int, ...]) -> bool:
    """Whether the axes are exactly the last ones."""
    return axes == tuple(range(-len(axes), 0))


def varies_only_along(value: Value | None, axes: tuple[int, ...]) -> bool:
    """Whether a constant, aligned at the right, has more than one entry along `axes` alone."""
    tensor = constant(value)
    if tensor is None or tensor.size == 1:
        return False
    shape = tensor.shape.numpy()
    return all(n == 1 or i - len(shape) in axes for i, n in enumerate(shape))


def filled_with(value: Value | None, number: float) -> bool:
    """Whether a constant of moderate size holds only this number."""
    tensor = constant(value)
    return tensor is not None and tensor.size <= 1 << 16 and bool(np.all(tensor.numpy() == number))


def is_closed(idiom: Idiom) -> bool:
    """Whether nobody outside reads a value inside."""
    inside = set(map(id, idiom.nodes))
    visible = set(map(id, idiom.outputs))
    for node in idiom.nodes:
        for value in node.outputs:
            if id(value) in visible:
                continue
            if value.is_graph_output() or any(id(n) not in inside for n, _ in readers(value)):
                return False
    return True


def number(value: Value | None) -> float | None:
    """The scalar behind Cast, Identity and Expand of a constant."""
    while (node := producer(value, *PASSIVE, "Expand")) is not None:
        value = node.inputs[0]
    return scalar(value)
