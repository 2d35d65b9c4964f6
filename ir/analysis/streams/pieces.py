"""Ops that part an axis and join it again: which places of one value lie where in another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ir.analysis import shapes
from ir.analysis.idioms.base import producer
from ir.graph import Node, Value, array, attribute, rank, scalar

from .lanes import Lane, after, before, sizes

PARTS = ("Split", "Slice", "Gather")
Piece = tuple[Value, slice]


def pieces(node: Node) -> tuple[int, list[Piece]] | None:
    """(axis, its piece in every output) of a Split, of a Slice of one axis, of a Gather of one
    place; the axis alone where the places are not known."""
    dims = shapes.dims(node.inputs[0])
    if dims is None:
        return None
    if node.op_type == "Slice":
        return _sliced(node, dims)
    if node.op_type == "Gather":
        axis, chosen = int(attribute(node, "axis", 0)) % len(dims), scalar(node.inputs[1])
        size = dims[axis]
        if chosen is None or not isinstance(size, int):
            return axis, []
        place = int(chosen) % size
        return axis, [(node.outputs[0], slice(place, place + 1))]
    axis = int(attribute(node, "axis", 0)) % len(dims)
    widths = [sizes(output, (axis,)) for output in node.outputs]
    return axis, _in_a_row(list(node.outputs), widths) if None not in widths else []


def _in_a_row(values: list[Value], widths: list) -> list[Piece]:
    stops = np.cumsum([w[0] for w in widths])
    return [
        (v, slice(int(stop - w[0]), int(stop)))
        for v, w, stop in zip(values, widths, stops, strict=True)
    ]


def _sliced(node: Node, dims) -> tuple[int, list[Piece]] | None:
    """A Slice of one axis; its bounds matter to the axis of the channels alone."""
    axes = array(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None or axes.size != 1:
        return None
    axis = int(axes.item()) % len(dims)
    bounds = [array(v) for v in (*node.inputs[1:3], *node.inputs[4:])]
    size = dims[axis]
    if not isinstance(size, int) or any(b is None or b.size != 1 for b in bounds):
        return axis, []
    start, stop, *step = (int(np.clip(b.item(), -(2**31), 2**31)) for b in bounds)  # type: ignore
    if min([1, *step]) < 1:
        return axis, []
    return axis, [(node.outputs[0], slice(start, stop, *step))]


def part_before(node: Node, value: Value, lane: Lane) -> Lane | None:
    """The lane in what a Split, Slice or Gather takes `value` from."""
    found, source = pieces(node), node.inputs[0]
    if found is None:
        return None
    axis, places = found
    lane_there = _uncut(node, axis, lane)
    if lane_there is None or axis not in lane_there.axes:
        return lane_there
    where = next((s for output, s in places if output is value), None)
    return None if where is None else _put(source, lane_there, axis, where)


def _uncut(node: Node, axis: int, lane: Lane) -> Lane | None:
    """The lane with the axes of what is cut, the axis itself among them where it is a factor of the
    channels: q, k and v of one layer, reshaped to an axis of three."""
    source = node.inputs[0]
    if node.op_type == "Gather":
        axes = before(node, lane.axes)
        if axes is None:
            return None
        lane = Lane(axes, lane.index, lane.inverse)
    cut = node.op_type == "Gather" or sizes(node.outputs[0], (axis,)) == [1]
    if axis in lane.axes or not cut or not _is_factor(source, axis):
        return lane
    # one place of the new axis; `take` sorts the axes
    return Lane((axis, *lane.axes), lane.index, lane.inverse)


def _is_factor(value: Value | None, axis: int) -> bool:
    """Whether an axis was made by a Reshape that splits a longer one."""
    node = producer(value, "Transpose", "Reshape")
    while node is not None and node.op_type == "Transpose":
        perm = attribute(node, "perm") or [*reversed(range(rank(node.outputs[0]) or 0))]
        axis = perm[axis]
        node = producer(node.inputs[0], "Transpose", "Reshape")
    return node is not None and before(node, (axis,)) is None


def parts_after(node: Node, lane: Lane) -> list[tuple[Value, Lane]] | None:
    """The lanes in the outputs of a Split, Slice or Gather; None when they are not known."""
    found = pieces(node)
    if found is None:
        return None
    axis, places = found
    if axis not in lane.axes:
        axes = after(node, lane.axes) if node.op_type == "Gather" else lane.axes
        same = None if axes is None else Lane(axes, lane.index, lane.inverse)
        return None if same is None else [(output, same) for output in node.outputs]
    taken = [(v, _take(node.inputs[0], lane, axis, where)) for v, where in places]
    known = [(v, _outside(node, axis, part)) for v, part in taken if part is not None]
    return known if known and len(known) == len(taken) else None


def _outside(node: Node, axis: int, lane: Lane) -> Lane:
    """The lane in a piece; Gather leaves the axis out, or in its place the one of its index."""
    if node.op_type != "Gather" or rank(node.inputs[1]) == 1:
        return lane
    kept = tuple(a - (a > axis) for a in lane.axes if a != axis)
    return Lane(kept, lane.index, lane.inverse)


def joined_axis(node: Node) -> int | None:
    size = rank(node.outputs[0])
    return None if size is None else int(attribute(node, "axis", 0)) % size


def joined_before(node: Node, lane: Lane) -> Iterator[tuple[int, Lane | None]]:
    """(input, its lane) of a Concat along an axis of the lane; None when it is not known."""
    axis = joined_axis(node)
    values = list(node.inputs)
    for place, (_, where) in enumerate(_joined(values, axis)):
        if where is None or axis is None:
            yield place, None
        else:
            yield place, _take(node.outputs[0], lane, axis, where)


def joined_after(node: Node, place: int, lane: Lane) -> Lane | None:
    """The lane of a Concat's output, of which one input has a lane along the same axis."""
    axis = joined_axis(node)
    where = _joined(list(node.inputs), axis)[place][1]
    return None if where is None or axis is None else _put(node.outputs[0], lane, axis, where)


def _joined(values: list, axis: int | None) -> list[tuple[Value | None, slice | None]]:
    widths = [None if axis is None else sizes(v, (axis,)) for v in values]
    if None in widths:
        return [(v, None) for v in values]
    return list(_in_a_row(values, widths))


def _take(whole: Value | None, lane: Lane, axis: int, where: slice) -> Lane | None:
    held = sizes(whole, lane.axes)
    if held is None:
        return None
    chosen = tuple(where if a == axis else slice(None) for a in lane.axes)
    return Lane(lane.axes, lane.index.reshape(held)[chosen].ravel(), lane.inverse)


def _put(whole: Value | None, lane: Lane, axis: int, where: slice) -> Lane | None:
    held = sizes(whole, lane.axes)
    if held is None:
        return None
    index = np.full(held, -1)
    spot = index[tuple(where if a == axis else slice(None) for a in lane.axes)]
    if spot.size != lane.index.size:
        return None
    spot[...] = lane.index.reshape(spot.shape)
    return Lane(lane.axes, index.ravel(), lane.inverse)
