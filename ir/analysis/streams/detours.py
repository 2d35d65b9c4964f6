"""Where exporters reshape to fewer axes, do something there, and reshape back.

Group normalisation: Reshape to groups, InstanceNormalization, Reshape back. The last two axes of
heads swapped: batch and heads made one, Transpose, and parted again.
"""

from __future__ import annotations

from typing import NamedTuple

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.graph import Node, Value, attribute, constant, rank, readers

from .lanes import Lane
from .walk import Walk


class Detour(NamedTuple):
    source: Value
    result: Value
    middle: Node
    inside: tuple[Value, Value]


def around(walk: Walk, node: Node, lane: Lane) -> bool:
    """Whether a Reshape is one end of a detour that the lane passes; then it was taken further."""
    found = _from_front(node) or _from_back(node) if is_op(node, "Reshape") else None
    if found is None:
        return False
    ahead = node.inputs[0] is found.source
    if is_op(found.middle, "Transpose"):
        passed = _swapped(found, lane)
    else:
        passed = _grouped(walk, found, lane)
    if passed is None:
        return False
    walk.inside.extend(found.inside)
    walk.take(found.result if ahead else found.source, passed, node)
    return True


def _swapped(found: Detour, lane: Lane) -> Lane | None:
    size = rank(found.source) or 0
    source, between, result = map(shapes.dims, (found.source, found.inside[0], found.result))
    if source is None or between is None or result is None or size < 4 or len(between) != 3:
        return None
    if between[1:] != source[-2:] or result != (*source[:-2], source[-1], source[-2]):
        return None
    if tuple(attribute(found.middle, "perm") or ()) != (0, 2, 1):
        return None
    swap = {size - 1: size - 2, size - 2: size - 1}
    return Lane(tuple(swap.get(a, a) for a in lane.axes), lane.index, lane.inverse)


def _grouped(walk: Walk, found: Detour, lane: Lane) -> Lane | None:
    """An order of the channels passes that stays in each group."""
    gain, between = constant(found.middle.inputs[1]), shapes.dims(found.inside[0])
    source = shapes.dims(found.source)
    if walk.goal != "permute" or lane.axes != (1,) or gain is None or source is None:
        return None
    if between is None or len(between) != 3 or between[:2] != (source[0], gain.size):
        return None
    if shapes.dims(found.result) != source or len(lane.index) % gain.size:
        return None
    walk.within_runs(lane.index, len(lane.index) // gain.size)
    return lane


def _from_front(node: Node) -> Detour | None:
    middle = _only_reader(node.outputs[0], "InstanceNormalization", "Transpose")
    end = None if middle is None else _only_reader(middle.outputs[0], "Reshape")
    return None if middle is None or end is None else _detour(node, middle, end)


def _from_back(node: Node) -> Detour | None:
    middle = producer(node.inputs[0], "InstanceNormalization", "Transpose")
    front = None if middle is None else producer(middle.inputs[0], "Reshape")
    return None if middle is None or front is None else _detour(front, middle, node)


def _detour(front: Node, middle: Node, end: Node) -> Detour | None:
    source, inside = front.inputs[0], (front.outputs[0], middle.outputs[0])
    if source is None or any(len(readers(v)) != 1 or v.is_graph_output() for v in inside):
        return None
    return Detour(source, end.outputs[0], middle, inside)


def _only_reader(value: Value, *ops: str) -> Node | None:
    uses = readers(value)
    return uses[0][0] if len(uses) == 1 and is_op(uses[0][0], *ops) else None
