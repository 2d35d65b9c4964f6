"""The arithmetic of shapes, sizes unknown or not: broadcasting, and the -1 of a Reshape."""

from __future__ import annotations

import math

import numpy as np

from .symbols import Poly

Shape = tuple["int | Poly", ...]
Partial = tuple["int | Poly | None", ...]
"""A shape of which some sizes do not follow from the inputs: None."""


def broadcast(*shapes: Shape) -> Partial:
    """The broadcast shape; None where two unknown sizes meet."""
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    result = []
    for sizes in zip(*padded, strict=True):
        wide = _without_cut({size for size in sizes if size != 1})
        numbers = {size for size in wide if isinstance(size, int)}
        # A known size above 1 wins: the other must be equal to it, or 1.
        open_ = len(wide) > 1 and not numbers
        result.append(None if open_ else next(iter(numbers or wide), 1))
    return tuple(result)


def cut(size: int, end: Poly) -> Poly:
    """How many of the first `end` places an axis of `size` has."""
    return Poly.named(f"min({size},{end})")


def _without_cut(wide: set[int | Poly]) -> set[int | Poly]:
    """A table cut at n rows (positions up to the length n) broadcasts with n only where it has n:
    above its own size it does not fit, and at n = 1 both are 1."""
    ends = tuple(f",{size})" for size in wide if isinstance(size, Poly))
    return {s for s in wide if not (str(s).startswith("min(") and str(s).endswith(ends))}


def reshaped(source: Shape | None, wanted: np.ndarray, *, allowzero: bool) -> Shape:
    """The output shape of a Reshape, its -1 solved by exact division of the sizes."""
    sizes = [
        source[i] if not isinstance(n, Poly) and n == 0 and not allowzero else n  # type: ignore
        for i, n in enumerate(wanted)
    ]
    if -1 in [s for s in sizes if isinstance(s, int)]:
        left = list(source)  # type: ignore[arg-type]
        others = [s for s in sizes if s != -1 and not _taken_out(s, left)]  # type: ignore[arg-type]
        rest = math.prod(left, start=1) // math.prod(others, start=1)  # type: ignore[operator]
        sizes = [rest if s == -1 else s for s in sizes]
    return tuple(int(s) if not isinstance(s, Poly) else s for s in sizes)


def _taken_out(size: int | Poly, sizes: list[int | Poly]) -> bool:
    """Whether `sizes` had such a size, which is then gone."""
    if size in sizes:
        sizes.remove(size)
        return True
    return False
