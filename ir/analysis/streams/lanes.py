"""Where a value holds a stream's channels, and how ops of one operand move them about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.analysis.shapes import Dim
from ir.graph import Node, Value, array, attribute, constant, rank, readers

Axes = tuple[int, ...]
"""Axes whose row-major flattening holds the channels: (1, 3) for heads split off a width."""
ALL = frozenset({"scale", "shift", "permute"})
POSITIVE = frozenset({"scale", "permute"})
REDUCES = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
KEEPS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("Identity", "Cast", "Dropout"), ALL),
    **dict.fromkeys(("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), ALL),
    **dict.fromkeys(("Relu", "LeakyRelu", "Neg", "Abs", "MaxPool", "AveragePool"), POSITIVE),
    **dict.fromkeys(("GlobalMaxPool", "ReduceSum"), POSITIVE),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "ReduceMax", "ReduceMin"), ALL),
    **dict.fromkeys(("Expand", "Tile", "Gather"), ALL),
    **dict.fromkeys(("Resize", "Upsample", "Pad"), POSITIVE),
}
"""Ops of one operand, and the maps that pass them."""


@dataclass(frozen=True, eq=False)
class Lane:
    """The channels of a stream within a value.

    axes:    flattened row by row they run over places
    index:   the channel at each place, -1 where it is none of the stream's
    inverse: the value is multiplied where the others are divided: keys beside queries
    """

    axes: Axes
    index: np.ndarray
    inverse: bool = False


def dims(value: Value | None) -> tuple[Dim, ...] | None:
    """The dims of a value; a last one that is open is as long as a MatMul says that reads it."""
    found = shapes.dims(value)
    if value is None or not found or found[-1].__class__ is int:
        return found
    for node, place in readers(value):
        weight = constant(node.inputs[1]) if is_op(node, "MatMul") and place == 0 else None
        if weight is not None and len(weight.shape) > 1:
            return (*found[:-1], weight.shape.numpy()[-2])
    return found


def sizes(value: Value | None, axes: Axes) -> list[int] | None:
    """How long these axes are; None where one is open."""
    found = dims(value)
    if found is None or max(axes) >= len(found) or min(axes) < 0:
        return None
    chosen = [found[a] for a in axes]
    return None if [d for d in chosen if d.__class__ is not int] else chosen  # type: ignore


def before(node: Node, axes: Axes) -> Axes | None:
    """The axes of the first input of an op of `KEEPS`; None where channels mix with other axes."""
    return _moved(node, axes, back=True)


def after(node: Node, axes: Axes) -> Axes | None:
    """The axes of its output."""
    return _moved(node, axes, back=False)


def _moved(node: Node, axes: Axes, *, back: bool) -> Axes | None:
    source, target = node.inputs[0], node.outputs[0]
    match node.op_type:
        case "Transpose":
            perm = list(attribute(node, "perm") or reversed(range(rank(target) or 0)))
            return tuple(perm[a] if back else perm.index(a) for a in axes)
        case "Reshape" | "Flatten":
            pair = (target, source) if back else (source, target)
            return _each_run(*pair, axes)
        case "Expand" | "Tile":
            return _repeated(node, axes, back=back)
        case "Gather":
            return _taken(node, axes, back=back)
        case "Resize" | "Upsample" | "Pad":
            same = sizes(source, axes)
            return axes if same is not None and same == sizes(target, axes) else None
        case op if op in REDUCES and attribute(node, "keepdims", 1):
            places = _places(node)
            return None if places is None or places & set(axes) else axes
        case op if op in ("Squeeze", "Unsqueeze", *REDUCES):
            return _with_ones(node, axes, back=back == (op != "Unsqueeze"))
        case op if op.endswith("Pool") and axes != (1,):
            return None
    return axes


def _repeated(node: Node, axes: Axes, *, back: bool) -> Axes | None:
    """Expand and Tile put copies along axes of one element, which may be new ones in front."""
    source, target = rank(node.inputs[0]), rank(node.outputs[0])
    if source is None or target is None:
        return None
    new = target - source
    if back:
        return tuple(a - new for a in axes)
    moved = tuple(a + new for a in axes)
    return moved if sizes(node.inputs[0], axes) == sizes(node.outputs[0], moved) else None


def _taken(node: Node, axes: Axes, *, back: bool) -> Axes | None:
    """Gather takes places of another axis; its indices' axes take the place of that one."""
    size, chosen = rank(node.inputs[0]), rank(node.inputs[1])
    if size is None or chosen is None:
        return None
    axis = int(attribute(node, "axis", 0)) % size
    if back:
        if any(axis <= a < axis + chosen for a in axes):
            return None
        return tuple(a if a < axis else a - chosen + 1 for a in axes)
    return None if axis in axes else tuple(a if a < axis else a + chosen - 1 for a in axes)


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


def reduced(node: Node) -> set[int] | None:
    """The axes that a Reduce op takes the mean, the sum or the largest over."""
    return _places(node)


def _places(node: Node) -> set[int] | None:
    """The axes that a Squeeze or a mean takes away, or an Unsqueeze makes."""
    chosen = array(node.inputs[1]) if len(node.inputs) > 1 else None
    size = rank(_longer(node))
    return None if chosen is None or size is None else {int(a) % size for a in chosen.ravel()}


def _each_run(source: Value | None, target: Value | None, axes: Axes) -> Axes | None:
    """Neighbouring axes are reshaped together, and each such run by itself."""
    found: list[int] = []
    for run in runs(axes):
        moved = reshaped(source, target, run)
        if moved is None:
            return None
        found.extend(moved)
    return tuple(found) if len(set(found)) == len(found) else None


def runs(axes: Axes) -> Iterator[Axes]:
    """The axes in pieces of neighbours."""
    start = 0
    for end in range(1, len(axes) + 1):
        if end == len(axes) or axes[end] != axes[end - 1] + 1:
            yield axes[start:end]
            start = end


def reshaped(source: Value | None, target: Value | None, axes: Axes) -> Axes | None:
    """The axes of `target` that hold the channels of `source` and nothing else.

    Row-major order is kept, so they do where as many elements lie behind them as before, or where
    the dims in front are the same; the other dims may be open.
    """
    old, new = dims(source), dims(target)
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


def _product(found: Sequence[Dim]) -> int | None:
    numbers = shapes.known(found)
    return None if numbers is None else math.prod(numbers)


def _length(found: Sequence[Dim], count: int) -> int | None:
    """How many of the leading dims hold `count` elements; None when no number of them does."""
    held = 1
    for length, dim in enumerate(found):
        if held == count:
            return length
        if not isinstance(dim, int):
            return None
        held *= dim
    return len(found) if held == count else None
