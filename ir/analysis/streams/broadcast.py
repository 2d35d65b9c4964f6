"""Lanes of the operands and of the result of ops that broadcast."""

from __future__ import annotations

from ir.analysis import shapes
from ir.graph import Node, Value, rank

from .lanes import Axes, Lane, sizes
from .walk import Walk


def varying(value: Value | None, result: Value, axes: Axes) -> Axes | None:
    """Those of the result's axes along which an operand has as many elements, not one for all.

    None when that is not known.
    """
    mine, whole = shapes.dims(value), shapes.dims(result)
    if mine is None or whole is None:
        return None
    found = []
    for a in axes:
        place = a + len(mine) - len(whole)
        if place < 0 or mine[place] == 1:
            continue
        if mine[place] != whole[a] or not isinstance(mine[place], int):
            return None
        found.append(a)
    return tuple(found)


def narrowed(walk: Walk, value: Value, result: Value, lane: Lane, kept: Axes) -> Lane | None:
    """The lane of an operand that varies along the `kept` axes of the result alone.

    Channels that share one of its elements are tied.
    """
    held, size = sizes(result, lane.axes), rank(value)
    if held is None or size is None:
        return None
    index = lane.index.reshape(held)
    for place in reversed([i for i, a in enumerate(lane.axes) if a not in kept]):
        index = walk.collapsed(index, place)
    shift = size - (rank(result) or 0)
    return Lane(tuple(a + shift for a in kept), index.ravel(), lane.inverse)


def widened(value: Value, result: Value, lane: Lane) -> Lane | None:
    """The lane of the result, of which an operand is known; None where it spreads the channels."""
    size, whole = rank(value), rank(result)
    if size is None or whole is None:
        return None
    axes = tuple(a + whole - size for a in lane.axes)
    same = sizes(value, lane.axes) == sizes(result, axes) is not None
    return Lane(axes, lane.index, lane.inverse) if same else None


def port_at(walk: Walk, node: Node, place: int, lane: Lane, kept: Axes) -> tuple[int, Lane] | None:
    """(axis, lane) of a constant operand that varies along one axis of the lane."""
    value = node.inputs[place]
    assert value is not None
    found = narrowed(walk, value, node.outputs[0], lane, kept)
    if found is None or len(found.axes) != 1:
        walk.block(node, "holds a constant that spreads over split channels")
        return None
    return found.axes[0], found
