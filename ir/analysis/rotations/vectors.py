"""Where a value holds vectors of channels that one matrix maps, and where layout ops move them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ir.analysis import shapes
from ir.analysis.shapes import Dim
from ir.analysis.streams.pieces import pieces
from ir.graph import Node, Value, array, attribute, rank

SAME = ("Identity", "Cast", "Dropout", "Neg")
MOVES = (
    *SAME, "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Gather",
    "ReduceMean", "ReduceSum", "AveragePool", "GlobalAveragePool", "Split", "Slice",
)  # fmt: skip
"""Ops of one operand that act alike on every channel of a vector, so that a matrix passes them."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of `size` channels, one behind the other along an axis: a residual stream's width is
    one of them, that of split heads one for each head. `part`: the places they fill, or all."""

    axis: int
    size: int
    part: tuple[int, int] | None = None


def fitting(value: Value | None, vectors: Vectors) -> bool:
    """Whether the axis has a known length that the vectors fill."""
    dims = shapes.dims(value)
    if dims is None or not 0 <= vectors.axis < len(dims):
        return False
    length = dims[vectors.axis]
    if vectors.part is not None:
        first, last = vectors.part
        return isinstance(length, int) and last <= length and (last - first) % vectors.size == 0
    return isinstance(length, int) and length % vectors.size == 0


def aligned(value: Value | None, other: Value | None, vectors: Vectors) -> Vectors | None:
    """The vectors of `value` in `other`, which broadcasts with it and has all their channels."""
    mine, theirs = shapes.dims(value), shapes.dims(other)
    if mine is None or theirs is None:
        return None
    axis = vectors.axis + len(theirs) - len(mine)
    if axis < 0 or theirs[axis] != mine[vectors.axis]:
        return None
    return Vectors(axis, vectors.size, vectors.part)


def one_for_all(factor: Value | None, output: Value, axis: int) -> bool:
    """Whether an operand holds one number for all channels, given the axis in the output."""
    dims, size = shapes.dims(factor), rank(output)
    if dims is None or size is None:
        return False
    place = axis + len(dims) - size
    return place < 0 or dims[place] == 1


def behind(node: Node, output: Value, vectors: Vectors) -> Vectors | None:
    """The vectors in the first input of an op of `MOVES`; None where channels mix."""
    source = node.inputs[0]
    if node.op_type in ("Split", "Slice"):
        return _part_behind(node, output, vectors)
    return _checked(source, _moved(node, source, output, vectors, back=True))


def ahead(node: Node, vectors: Vectors) -> Iterator[tuple[Value, Vectors | None]]:
    """The vectors in the outputs of an op of `MOVES` that hold any; None where channels mix."""
    output = node.outputs[0]
    if node.op_type in ("Split", "Slice"):
        yield from _parts_ahead(node, vectors)
    else:
        yield output, _checked(output, _moved(node, node.inputs[0], output, vectors, back=False))


def _checked(value: Value | None, vectors: Vectors | None) -> Vectors | None:
    return vectors if vectors is not None and fitting(value, vectors) else None


def _moved(
    node: Node, source: Value | None, output: Value, vectors: Vectors, *, back: bool
) -> Vectors | None:
    start, end = (output, source) if back else (source, output)
    op, axis = node.op_type, vectors.axis
    if op in SAME:
        return vectors if _real(source) and _real(output) else None
    if op == "Transpose":
        perm = list(attribute(node, "perm") or reversed(range(rank(output) or 0)))
        return Vectors(perm[axis] if back else perm.index(axis), vectors.size, vectors.part)
    if op in ("Expand", "Tile"):
        return aligned(start, end, vectors)
    if op.endswith("Pool"):
        return vectors if axis == 1 else None
    if op == "Gather":
        place = _gathered(node, axis, back=back)
        return None if place is None else Vectors(place, vectors.size, vectors.part)
    if op.startswith("Reduce"):
        place = _reduced(node, axis, back=back)
        return None if place is None else Vectors(place, vectors.size, vectors.part)
    return reshaped(shapes.dims(start), shapes.dims(end), vectors)


def _real(value: Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


def reshaped(
    old: tuple[Dim, ...] | None, new: tuple[Dim, ...] | None, vectors: Vectors
) -> Vectors | None:
    """Row-major order is kept, so the channel follows from how many elements lie behind an axis:
    the axis with as many behind it, if whole vectors fill it. Open dims behind: the same axis, if
    the dims up to it are the same."""
    if old is None or new is None:
        return None
    axis, length = vectors.axis, old[vectors.axis]
    rest = shapes.known(old[axis + 1 :])
    if rest is not None:
        count = math.prod(rest)
        for place in reversed(range(len(new))):
            tail = shapes.known(new[place + 1 :])
            if tail is None or math.prod(tail) > count:
                break
            here, same = new[place], math.prod(tail) == count
            if same and isinstance(here, int) and here > 1 and here % vectors.size == 0:
                whole = vectors.part is None or here == length
                return Vectors(place, vectors.size, vectors.part) if whole else None
        return None
    front = old[: axis + 1]
    if None not in front and new[: axis + 1] == front and isinstance(length, int):
        return vectors
    return None


def _gathered(node: Node, axis: int, *, back: bool) -> int | None:
    """Rows taken along another axis; the axes of the indices stand where it was."""
    size, extra = rank(node.inputs[0]), rank(node.inputs[1])
    if size is None or extra is None:
        return None
    chosen = int(attribute(node, "axis", 0)) % size
    if axis < chosen:
        return axis
    if back:
        return axis - extra + 1 if axis >= chosen + extra else None
    return axis + extra - 1 if axis > chosen else None


def _reduced(node: Node, axis: int, *, back: bool) -> int | None:
    chosen = array(node.inputs[1]) if len(node.inputs) > 1 else None
    size = rank(node.inputs[0])
    if chosen is None or size is None:
        return None
    gone = {int(a) % size for a in chosen.ravel()}
    if attribute(node, "keepdims", 1):
        return None if axis in gone else axis
    kept = [a for a in range(size) if a not in gone]
    if back:
        return kept[axis]
    return kept.index(axis) if axis in kept else None


def _other_axes(node: Node, vectors: Vectors) -> bool:
    """Whether a Split or Slice leaves the axis of the vectors whole."""
    size = rank(node.inputs[0])
    if size is None:
        return False
    if node.op_type == "Split":
        return int(attribute(node, "axis", 0)) % size != vectors.axis
    chosen = array(node.inputs[3]) if len(node.inputs) > 3 else None
    return chosen is not None and vectors.axis not in {int(a) % size for a in chosen.ravel()}


def _parts(node: Node) -> tuple[int, list[tuple[Value, int, int]]] | None:
    """(axis, [(output, first place, last + 1)]) of a Split or a Slice of one axis by 1."""
    found, dims = pieces(node), shapes.dims(node.inputs[0])
    size = None if found is None or dims is None else dims[found[0]]
    if found is None or not isinstance(size, int):
        return None
    axis, places = found
    bounds = [(value, *where.indices(size)) for value, where in places]
    if not bounds or any(step != 1 for *_, step in bounds):
        return None
    return axis, [(value, start, stop) for value, start, stop, _ in bounds]


def _part_behind(node: Node, output: Value, vectors: Vectors) -> Vectors | None:
    if _other_axes(node, vectors):
        return vectors
    found = _parts(node)
    if found is None or found[0] != vectors.axis:
        return None
    start, stop = next((a, b) for value, a, b in found[1] if value is output)
    first, last = vectors.part or (0, stop - start)
    return Vectors(vectors.axis, vectors.size, (start + first, start + last))


def _parts_ahead(node: Node, vectors: Vectors) -> Iterator[tuple[Value, Vectors | None]]:
    if _other_axes(node, vectors):
        yield from ((value, vectors) for value in node.outputs)
        return
    found, dims = _parts(node), shapes.dims(node.inputs[0])
    size = None if dims is None else dims[vectors.axis]
    if found is None or found[0] != vectors.axis or not isinstance(size, int):
        yield node.outputs[0], None
        return
    begin, end = vectors.part or (0, size)
    for value, start, stop in found[1]:
        first, last = max(start, begin), min(stop, end)
        if first >= last:
            continue
        cut = (first - begin) % vectors.size or (last - begin) % vectors.size
        whole = (first, last) == (start, stop)
        part = None if whole else (first - start, last - start)
        yield value, None if cut else Vectors(vectors.axis, vectors.size, part)
