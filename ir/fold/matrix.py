"""Fold matrices over the channels of streams into the constants that write and read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ir.analysis.rotations import MatrixPort, MatrixStream
from ir.edit import Edit
from ir.errors import PassError
from ir.graph import Value, array

Rows = Callable[[np.ndarray], np.ndarray]
"""A map of float64 [N, C] to the same shape, row by row."""
PIECE = 1 << 19
"""So many numbers of a tensor are in float64 at once: 4 MiB, whatever the tensor's size."""


@dataclass(frozen=True)
class Map:
    """What becomes of the vectors: written rows y -> write(y), read rows w -> read(w), such that
    write(y) . read(w) = y . w. `read` None: no reader is allowed."""

    write: Rows
    read: Rows | None


def product(matrix: np.ndarray) -> Map:
    """y @ M where written, w @ inv(M)^T where read."""
    inverse = np.linalg.inv(matrix).T
    return Map(lambda y: y @ matrix, lambda w: w @ inverse)


def orthogonal(turn: Rows) -> Map:
    """An orthogonal matrix acts on the readers' rows as on the writers'."""
    return Map(turn, turn)


def centring() -> Map:
    """Take the mean of the channels away."""
    return Map(lambda y: y - y.mean(axis=-1, keepdims=True), None)


@dataclass(frozen=True)
class Change:
    """One map along one axis (from the end) of a tensor; see `MatrixPort`."""

    port: MatrixPort
    rows: Rows

    @property
    def key(self) -> tuple:
        return self.port.axis, self.port.length, self.port.size, self.port.part, id(self.rows)


def fold_maps(found: Sequence[tuple[MatrixStream, Map]], edit: Edit, mark: str) -> None:
    """Fold every stream's map into its ports, all that meet in one tensor before it is cast.

    Every value on the way means something else afterwards and takes a fresh name, which ends in
    `mark`. ValueError when a stream allows no map; PassError when numbers do not fit their type.
    """
    places: dict[tuple[int, int], list[Change]] = {}
    for stream, each in found:
        if stream.stopped or (stream.readers and each.read is None):
            raise ValueError(stream.stopped or "the readers cannot undo the map")
        for ports, rows in ((stream.writers, each.write), (stream.readers, each.read)):
            for port in ports:
                assert rows is not None
                places.setdefault((id(port.node), port.index), []).append(Change(port, rows))
    made: dict[tuple, Value] = {}
    for changes in places.values():
        _exchange(changes, made, edit, mark)
    for stream, _ in found:
        for value in stream.values:
            if id(value) not in stream.uses:
                edit.rename(value, f"{str(value.name).removesuffix('.was')}.{mark}")


def _exchange(changes: list[Change], made: dict[tuple, Value], edit: Edit, mark: str) -> None:
    """A new constant for one input of a node; the same one for inputs that were and are equal."""
    node, index = changes[0].port.node, changes[0].port.index
    old = node.inputs[index]
    numbers = array(old)
    assert old is not None
    assert numbers is not None
    if not np.any(numbers):
        return  # zero stays zero
    key = (id(old), *sorted((c.key for c in changes), key=repr))
    new = made.get(key) if node.graph is edit.graph.graph else None
    if new is None:
        new = edit.constant(changed(numbers, changes), f"{old.name}.{mark}", at=node)
    edit.set_input(node, index, new)
    if old.uses():
        made[key] = new
    elif old.is_initializer():
        edit.drop_constant(old)


def changed(numbers: np.ndarray, changes: Sequence[Change]) -> np.ndarray:
    """The maps along their axes, computed in float64 and cast once, a piece at a time."""
    wide = numbers
    for change in changes:
        wide = _spread(wide, change.port)
    out, finite = np.empty(wide.shape, numbers.dtype), True
    for place in _pieces(wide.shape, [c.port.axis for c in changes]):
        piece = wide[place].astype(np.float64)
        for change in changes:
            piece = along(piece, change)
        with np.errstate(over="ignore"):
            out[place] = piece
        finite = finite and bool(np.isfinite(out[place]).all())
    if not finite and np.isfinite(numbers).all():
        raise PassError(f"a folded constant is not finite in {numbers.dtype}", hint="use float32")
    return out


def along(numbers: np.ndarray, change: Change) -> np.ndarray:
    """One map along its axis; a new array."""
    port = change.port
    moved = np.moveaxis(numbers, port.axis, -1)
    vectors = moved if port.part is None else moved[..., slice(*port.part)]
    turned = change.rows(vectors.reshape(-1, port.size)).reshape(vectors.shape)
    if port.part is not None:
        whole = moved.copy()
        whole[..., slice(*port.part)] = turned
        turned = whole
    return np.moveaxis(turned, -1, port.axis)


def _spread(numbers: np.ndarray, port: MatrixPort) -> np.ndarray:
    """The constant with the port's axis at full length."""
    missing = -port.axis - numbers.ndim
    if missing > 0:
        numbers = numbers.reshape((1,) * missing + numbers.shape)
    shape = list(numbers.shape)
    shape[port.axis] = port.length
    return np.broadcast_to(numbers, shape)


def _pieces(shape: tuple[int, ...], axes: Sequence[int]) -> list[tuple[slice, ...]]:
    """Slices that together hold all, cut along the longest axis that no map runs over."""
    free = [a - len(shape) for a in range(len(shape)) if a - len(shape) not in axes]
    whole = (slice(None),) * len(shape)
    if not free or math.prod(shape) <= PIECE:
        return [whole]
    axis = max(free, key=lambda a: shape[a])
    step = max(1, PIECE * shape[axis] // math.prod(shape))
    return [
        tuple(
            slice(i, i + step) if a - len(shape) == axis else slice(None) for a in range(len(shape))
        )
        for i in range(0, shape[axis], step)
    ]
