"""Forwards: every reader of a value that carries a stream's channels must undo or pass the map."""

from __future__ import annotations

import math

import numpy as np

from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, constant, readers

from .detours import around
from .elementwise import CHECKED, UNARY, read_elementwise
from .fused import FUSED, read_fused
from .heads import read_product
from .lanes import KEEPS, Lane, after, reduced, sizes
from .limits import limit, limit_reader
from .pieces import PARTS, joined_after, joined_axis, parts_after
from .ports import NORMS, SIZES, Port, contraction, depthwise
from .walk import Walk
from .write import norm


def read(walk: Walk, value: Value, lane: Lane) -> None:
    if value.is_graph_output():
        walk.block(None, f"puts %{value.name} out")
    for node, place in readers(value):
        if walk.blocked is None and node.op_type not in SIZES:
            _read_by(walk, node, place, value, lane)


def _read_by(walk: Walk, node: Node, place: int, value: Value, lane: Lane) -> None:
    layer = contraction(node)
    if layer is not None and place == 0:
        return _layer(walk, node, layer[1], layer[2], lane)
    if place == 0 and is_op(node, *PARTS):
        return _parts(walk, node, lane)
    if place == 0 and walk.goal == "permute" and _invariant(walk, node, value, lane):
        return None
    if place == 0 and around(walk, node, lane):
        return None
    if place == 0 and (is_op(node, *KEEPS) or limit(node) is not None):
        return _kept(walk, node, lane)
    if is_op(node, "Concat"):
        return _joined(walk, node, place, lane)
    if is_op(node, *CHECKED):
        return read_elementwise(walk, node, place, value, lane)
    if walk.goal == "permute" and place == 0 and is_op(node, *UNARY):
        return walk.take(node.outputs[0], lane, node)
    if walk.goal == "permute" and place == 0 and is_op(node, *NORMS):
        return norm(walk, node, lane, value)
    if is_op(node, *FUSED):
        return read_fused(walk, node, place, lane)
    if is_op(node, "MatMul") and constant(node.inputs[1 - place]) is None:
        return read_product(walk, node, place, value, lane)
    return walk.block(node, "sees the channels unscaled")


def _layer(walk: Walk, node: Node, axis: int, port: Port, lane: Lane) -> None:
    if lane.axes != (axis,):
        return walk.block(node, "contracts over another axis")
    if walk.goal == "permute" and depthwise(node):
        return walk.take(node.outputs[0], lane, node)
    walk.port(node, 1, port.axis, "weight", lane, groups=port.groups, reads=True)
    if port.groups != 1:
        walk.within_runs(lane.index, len(lane.index) // port.groups)
    return walk.keep(limit_reader(node))


def _parts(walk: Walk, node: Node, lane: Lane) -> None:
    found = parts_after(node, lane)
    if found is None:
        return walk.block(node, "parts the channels")
    inside = [part.index for _, part in found]
    walk.cut([*inside, np.setdiff1d(lane.index, np.concatenate(inside))])
    for output, part in found:
        if (part.index >= 0).any():
            walk.take(output, part, node)
    return None


def _kept(walk: Walk, node: Node, lane: Lane) -> None:
    if len(node.outputs) > 1 and any(v.uses() for v in node.outputs[1:]):
        return walk.block(node, "puts out more than the channels")
    kept = limit(node)
    walk.keep(KEEPS[node.op_type] if kept is None else kept)
    axes = after(node, lane.axes)
    found = None if axes is None else Lane(axes, lane.index, lane.inverse)
    return walk.take(node.outputs[0], found, node)


def _joined(walk: Walk, node: Node, place: int, lane: Lane) -> None:
    if joined_axis(node) in lane.axes:
        lane_of_all = joined_after(node, place, lane)
        if lane_of_all is None:
            return walk.block(node, "joins parts of unknown size")
        return walk.take(node.outputs[0], lane_of_all, node)
    return walk.take(node.outputs[0], lane, node)


def _invariant(walk: Walk, node: Node, value: Value, lane: Lane) -> bool:
    """A mean over all channels, or over those of each head, does not see their order."""
    if not node.op_type.startswith("Reduce"):
        return False
    places, held = reduced(node), sizes(value, lane.axes)
    if places is None or held is None or not places & set(lane.axes):
        return False
    count = len([a for a in lane.axes if a in places])
    if set(lane.axes[-count:]) - places:
        return False
    if count < len(held):
        walk.within_runs(lane.index, math.prod(held[-count:]))
    return True
