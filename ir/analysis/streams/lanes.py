"""Where a value holds a stream's channels, and where the values before and after a node do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ir.analysis import shapes
from ir.analysis.shapes import Dim
from ir.graph import Node, Value, array, attribute, rank

Axes = tuple[int, ...]
"""Axes whose row-major flattening is the channel: (1, 3) for heads split off a width."""
ALL = frozenset({"scale", "shift", "permute"})
_POSITIVE = frozenset({"scale", "permute"})
KEEPS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("Identity", "Cast", "Dropout"), ALL),
    **dict.fromkeys(("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), ALL),
    **dict.fromkeys(("Relu", "LeakyRelu", "MaxPool", "AveragePool"), _POSITIVE),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), ALL),
}
"""Ops of one operand, and the maps that pass them."""
PARTS = ("Split", "Slice")
"""Ops that take parts of an axis: some of the channels, or all of them at some places."""


@dataclass(frozen=True)
class Lane:
    """The channels of a stream within a value: places part[0]..part[1] - 1 of the flattened axes,
    or all of them."""

    axes: Axes
    part: tuple[int, int] | None = None


def before(node: Node, lane: Lane) -> Lane | None:
    """The lane of the first input of an op of `KEEPS`; None where channels mix with other axes."""
    axes = _moved(node, lane.axes, back=True)
    return None if axes is None else Lane(axes, lane.part)


def after(node: Node, lane: Lane) -> Lane | None:
    """The lane of its output."""
    axes = _moved(node, lane.axes, back=False)
    return None if axes is None else Lane(axes, lane.part)


def _moved(node: Node, axes: Axes, *, back: bool) -> Axes | None:
    source, target = node.inputs[0], node.outputs[0]
    if node.op_type == "Transpose":
        perm = list(attribute(node, "perm") or reversed(range(rank(target) or 0)))
        return tuple(perm[a] if back else perm.index(a) for a in axes)
    if node.op_type in ("Reshape", "Flatten"):
        return reshaped(target, source, axes) if back else reshaped(source, target, axes)
    if node.op_type == "ReduceMean" and attribute(node, "keepdims", 1):
        places = _places(node)
        return None if places is None or places & set(axes) else axes
    if node.op_type in ("Squeeze", "Unsqueeze", "ReduceMean"):
        return _with_ones(node, axes, back=back == (node.op_type != "Unsqueeze"))
    if node.op_type.endswith("Pool") and axes != (1,):
        return None
    return axes


def _with_ones(node: Node, axes: Axes, *, back: bool) -> Axes | None:
    """Axes of the side that has the ones (`back`) or has them no more."""
    size, places = rank(_longer(node)), _places(node)
    if size is None or places is None:
        return None
    kept = [a for a in range(size) if a not in places]
    if back:
        return tuple(kept[a] for a in axes)
    return tuple(kept.index(a) for a in axes) if set(axes) <= set(kept) else None


def _longer(node: Node) -> Value | None:
    return node.outputs[0] if node.op_type == "Unsqueeze" else node.inputs[0]


def _places(node: Node) -> set[int] | None:
    """The axes that a Squeeze or a mean takes away, or an Unsqueeze makes."""
    chosen = array(node.inputs[1]) if len(node.inputs) > 1 else None
    size = rank(_longer(node))
    return None if chosen is None or size is None else {int(a) % size for a in chosen.ravel()}


def reshaped(source: Value | None, target: Value | None, axes: Axes) -> Axes | None:
    """The axes of `target` that hold the channels of `source` and nothing else.

    Row-major order is kept, so they do where as many elements lie behind them as before, or where
    the dims in front are the same; the other dims may be open.
    """
    old, new = shapes.dims(source), shapes.dims(target)
    if old is None or new is None or axes != tuple(range(axes[0], axes[-1] + 1)):
        return None
    channels = _product(old[axes[0] : axes[-1] + 1])
    if channels is None:
        return None
    behind, front = _product(old[axes[-1] + 1 :]), old[: axes[0]]
    if behind is not None:
        stop = _length(new[::-1], behind)
        width = None if stop is None else _length(new[::-1][stop:], channels)
        if stop is not None and width:
            return tuple(range(len(new) - stop - width, len(new) - stop))
    if None not in front and new[: len(front)] == front:
        width = _length(new[len(front) :], channels)
        return tuple(range(len(front), len(front) + width)) if width else None
    return None


def _product(dims: Sequence[Dim]) -> int | None:
    return math.prod(dims) if all(isinstance(d, int) for d in dims) else None  # type: ignore


def _length(dims: Sequence[Dim], count: int) -> int | None:
    """How many of the leading dims hold `count` elements; None when no number of them does."""
    held = 1
    for length, dim in enumerate(dims):
        if held == count:
            return length
        if not isinstance(dim, int):
            return None
        held *= dim
    return len(dims) if held == count else None


def aligned(value: Value | None, other: Value | None, lane: Lane) -> Lane | None:
    """The lane in `other`, an operand or the result of an elementwise op that has `value` too.

    None where `other` is one number for all channels, or its size is not known.
    """
    mine, theirs = shapes.dims(value), shapes.dims(other)
    if mine is None or theirs is None:
        return None
    axes = tuple(a + len(theirs) - len(mine) for a in lane.axes)
    sizes = [mine[a] for a in lane.axes]
    known = all(isinstance(size, int) for size in sizes)
    if not known or min(axes) < 0 or [theirs[a] for a in axes] != sizes:
        return None
    return Lane(axes, lane.part)


def parts(node: Node) -> tuple[int, list[tuple[Value, int, int]]] | None:
    """(axis, [(output, first place, last + 1)]) of a Split or a Slice of one axis by 1."""
    dims = shapes.dims(node.inputs[0])
    if dims is None:
        return None
    if node.op_type == "Split":
        axis = int(attribute(node, "axis", 0)) % len(dims)
        found, start = [], 0
        for output in node.outputs:
            size = (shapes.dims(output) or (None,) * len(dims))[axis]
            if not isinstance(size, int):
                return None
            found.append((output, start, start + size))
            start += size
        return axis, found
    bounds = [array(v) for v in node.inputs[1:]]
    if len(bounds) < 3 or any(b is None or b.size != 1 for b in bounds):
        return None
    start, stop, axis, *step = (int(b.item()) for b in bounds)  # type: ignore[union-attr]
    size = dims[axis]
    if not isinstance(size, int) or step not in ([], [1]):
        return None
    start, stop, _ = slice(start, int(np.clip(stop, -size, size))).indices(size)
    return axis % len(dims), [(node.outputs[0], start, stop)]


def part_before(node: Node, value: Value, lane: Lane) -> Lane | None:
    """The lane in what a Split or Slice takes `value` from."""
    found = parts(node)
    if found is None:
        return None
    axis, places = found
    if axis not in lane.axes:
        return lane
    if lane.axes != (axis,):
        return None
    start, stop = next((a, b) for output, a, b in places if output is value)
    first, last = lane.part or (0, stop - start)
    return Lane(lane.axes, (start + first, start + last))


def parts_after(node: Node, lane: Lane) -> Iterator[tuple[Value, Lane | None]]:
    """The lanes in the outputs that hold channels; None: some of them only, or it is not known."""
    found = parts(node)
    if found is None:
        yield node.outputs[0], None
        return
    axis, places = found
    for output, start, stop in places:
        if axis not in lane.axes:
            yield output, lane
        elif lane.axes != (axis,) or lane.part is None:
            yield output, None
        elif start < lane.part[1] and lane.part[0] < stop:
            first, last = lane.part[0] - start, lane.part[1] - start
            whole = first >= 0 and last <= stop - start
            part = None if (first, last) == (0, stop - start) else (first, last)
            yield output, Lane(lane.axes, part) if whole else None
