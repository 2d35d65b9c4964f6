"""The elements of small whole-number tensors: sizes, and what is computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ir.graph import Node, attribute

from .symbols import Poly, differ

if TYPE_CHECKING:
    from .dims import Dims


def _shape_numbers(node: Node, dims: Dims) -> np.ndarray | None:
    shape = dims.shape(node.inputs[0])
    if shape is None:
        return None
    return _objects(shape[attribute(node, "start", 0) : attribute(node, "end")])


def _objects(items: tuple) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _size_number(node: Node, dims: Dims) -> np.ndarray | None:
    shape = dims.shape(node.inputs[0])
    return None if shape is None else np.array(math.prod(shape, start=1), object)  # type: ignore


def _all(node: Node, dims: Dims) -> list[np.ndarray] | None:
    found = [dims.numbers(value) for value in node.inputs]
    return None if any(f is None for f in found) else found  # type: ignore[return-value]


def _through(function: Callable[[Node, list[np.ndarray]], np.ndarray]) -> Callable:
    def rule(node: Node, dims: Dims) -> np.ndarray | None:
        arrays = _all(node, dims)
        return None if arrays is None else np.asarray(function(node, arrays), object)

    return rule


def _slice(node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    data, start, end = arrays[0], int(arrays[1].item()), int(arrays[2].item())
    axis, step = (
        int(a.item()) for a in (*arrays[3:], *([np.array(0), np.array(1)][len(arrays) - 3 :]))
    )
    if axis % data.ndim:
        raise ArithmeticError("not along the first axis")
    return data[slice(start, end, step)]


def _where(node: Node, dims: Dims) -> np.ndarray | None:
    arrays = _all(node, dims)
    if arrays is None or any(isinstance(c, Poly) for c in arrays[0].flat):
        return None
    return np.where(arrays[0].astype(bool), arrays[1], arrays[2])


def _equal(a: object, b: object) -> bool:
    if a == b:
        return True
    if differ(a, b):  # type: ignore[arg-type]
        return False
    raise ArithmeticError("not decided")


def _truncated(a: int | Poly, b: int | Poly) -> int | Poly:
    if isinstance(a, int) and isinstance(b, int) and (a < 0 or b <= 0):
        raise ArithmeticError("left to the evaluation of constants")
    return a // b


def _cast(node: Node, dims: Dims) -> np.ndarray | None:
    wide = attribute(node, "to") in (6, 7)  # int32, int64
    return dims.numbers(node.inputs[0]) if wide else None


def _each(function: Callable) -> Callable:
    return _through(lambda node, a: np.frompyfunc(function, 2, 1)(a[0], a[1]))


NUMBERS: dict[str, Callable[[Node, Dims], np.ndarray | None]] = {
    "Shape": _shape_numbers,
    "Size": _size_number,
    "Gather": _through(lambda node, a: np.take(a[0], a[1].astype(int), attribute(node, "axis", 0))),
    "Slice": _through(_slice),
    "Concat": _through(lambda node, a: np.concatenate(a, attribute(node, "axis"))),
    "Unsqueeze": _through(lambda node, a: np.expand_dims(a[0], tuple(int(i) for i in a[1]))),
    "Squeeze": _through(
        lambda node, a: np.squeeze(a[0], *(tuple(map(int, axes)) for axes in a[1:]))
    ),
    "Reshape": _through(lambda node, a: a[0].reshape([int(n) for n in a[1]])),
    "Identity": _through(lambda node, a: a[0]),
    "Cast": _cast,
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(_truncated),
    "Equal": _each(_equal),
    "Where": _where,
    "ReduceProd": _through(
        lambda node, a: a[0].prod(keepdims=bool(attribute(node, "keepdims", 1)))
    ),
    "Expand": _through(lambda node, a: np.broadcast_to(a[0], tuple(int(n) for n in a[1]))),
}
