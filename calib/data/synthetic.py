"""Random feeds from a graph's signature alone, for checks that need no real data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir

from calib.data.signature import Feed, Input, inputs_of
from ir.errors import DataError

_ROWS, _LENGTH, _SIDE = 2, 8, 32


def synthetic(graph: onnx_ir.Model, n: int, seed: int = 0) -> list[Feed]:
    """n seeded random feeds: floats are standard normal, integers 0 or 1 (so that they are valid
    as ids and masks), booleans fair.

    A free dimension is 2 on axis 0, 32 in the last two axes of rank 4, 8 elsewhere; one name has
    one size in all inputs. raises: DataError for an input of unknown rank.
    """
    inputs = inputs_of(graph)
    sizes = _sizes(inputs)
    rng = np.random.default_rng(seed)
    return [{one.name: _draw(one, sizes, rng) for one in inputs} for _ in range(n)]


def _sizes(inputs: Sequence[Input]) -> dict[str, int]:
    """{dimension name: size}, by the first place where each name stands."""
    sizes: dict[str, int] = {}
    for one in inputs:
        for axis, dim in enumerate(one.shape or ()):
            if isinstance(dim, str):
                sizes.setdefault(dim, _default(axis, len(one.shape or ())))
    return sizes


def _default(axis: int, rank: int) -> int:
    if axis == 0:
        return _ROWS
    return _SIDE if rank == 4 and axis >= 2 else _LENGTH


def _draw(one: Input, sizes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    if one.shape is None:
        raise DataError(
            f"no random data for {one}: its rank is unknown", hint="give calibration data"
        )
    rank = len(one.shape)
    shape = [
        dim if isinstance(dim, int) else sizes[dim] if dim else _default(axis, rank)
        for axis, dim in enumerate(one.shape)
    ]
    if one.dtype.kind in "biu":
        return rng.integers(0, 2, shape).astype(one.dtype)
    return rng.standard_normal(shape, np.float32).astype(one.dtype)
