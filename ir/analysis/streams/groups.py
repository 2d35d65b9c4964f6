"""Group normalisation as exporters write it: Reshape to groups, InstanceNormalization, and back."""

from __future__ import annotations

from typing import NamedTuple

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.graph import Node, Value, constant, readers

from .lanes import Lane
from .walk import Walk


class Grouped(NamedTuple):
    source: Value
    result: Value
    groups: int
    inside: tuple[Value, ...]


def through_groups(walk: Walk, node: Node, lane: Lane) -> bool:
    """Whether a Reshape is one end of a group norm: an order passes it that stays in each group."""
    if walk.goal != "permute" or not is_op(node, "Reshape") or lane.axes != (1,):
        return False
    found = _from_front(node) or _from_back(node)
    if found is None or len(lane.index) % found.groups:
        return False
    walk.within_runs(lane.index, len(lane.index) // found.groups)
    walk.inside.extend(found.inside)
    walk.take(found.source, lane, node)
    walk.take(found.result, lane, node)
    return True


def _from_front(node: Node) -> Grouped | None:
    norm = _only_reader(node.outputs[0], "InstanceNormalization")
    end = None if norm is None else _only_reader(norm.outputs[0], "Reshape")
    return None if norm is None or end is None else _grouped(node, norm, end)


def _from_back(node: Node) -> Grouped | None:
    norm = producer(node.inputs[0], "InstanceNormalization")
    front = None if norm is None else producer(norm.inputs[0], "Reshape")
    return None if norm is None or front is None else _grouped(front, norm, node)


def _grouped(front: Node, norm: Node, end: Node) -> Grouped | None:
    source, result = front.inputs[0], end.outputs[0]
    gain = constant(norm.inputs[1])
    dims, middle = shapes.dims(source), shapes.dims(front.outputs[0])
    if source is None or gain is None or dims is None or middle is None or len(middle) != 3:
        return None
    if shapes.dims(result) != dims or middle[1] != gain.size or middle[0] != dims[0]:
        return None
    inside = (front.outputs[0], norm.outputs[0])
    if any(len(readers(v)) != 1 or v.is_graph_output() for v in inside):
        return None
    return Grouped(source, result, gain.size, inside)


def _only_reader(value: Value, op: str) -> Node | None:
    uses = readers(value)
    return uses[0][0] if len(uses) == 1 and is_op(uses[0][0], op) else None
