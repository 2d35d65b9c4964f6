"""Choose the range of every weight group by its squared rounding error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import formats, ops
from ir.graph import Graph, array
from ir.qtype import QType
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, register
from passes.sites import decodes_of

from .clip import MOVED, set_scale
from .rtn import round_weight

SHRINKS = 1.0 - np.arange(40) / 50.0
"""Shares of the full range that the weight search tries (card observers: steps of 2 %)."""
FINE = 9
"""Tried for 8 bits and more, where the best share is never far from 1."""


@register
@dataclass(frozen=True)
class ClipWeights(Pass):
    """Shrink each weight group's range where that lowers the squared error of its codes.

    rewrite:  Encode(w, s, z) --> Encode(w, s', z'), and the same in its Decodes
    shapes:   s, z as `QType.scale_shape` of w
    options:  none
    error:    never more than that of the full range
    raises:   nothing; skips weights with a scale computed at run time, or whose codes are moved
              before they are decoded
    source:   card observers (MSE); GPTQ's `find_params`, arXiv:2210.17323
    """

    name: ClassVar[str] = "clip_weights"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for encode in [n for n in graph.graph.all_nodes() if ops.is_op(n, "Encode")]:
            weight = array(encode.inputs[0])
            if weight is None:
                continue
            if array(encode.inputs[1]) is None:
                ctx.skip(encode.inputs[0], "its scale is computed at run time")
                continue
            if decodes_of(encode) is None:
                ctx.skip(encode.inputs[0], MOVED)
                continue
            source = encode.inputs[0]
            set_scale(
                encode,
                *best_range(weight.astype(np.float32, copy=False), ops.qtype_of(encode)),
                ctx,
            )
            ctx.did(source)


def best_range(weight: np.ndarray, qtype: QType) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero per group with the least squared error over `SHRINKS` of the group's range."""
    low, high = group_extremes(weight, qtype)
    best: tuple[np.ndarray, np.ndarray | None] = formats.scale_and_zero(low, high, qtype)
    least = np.full(np.shape(low), np.inf)
    for share in SHRINKS[: FINE if qtype.bits >= 8 else None]:
        scale, zero = formats.scale_and_zero(low * share, high * share, qtype)
        back = formats.decode(round_weight(weight, scale, zero, qtype), scale, zero, qtype)
        error = group_sum(np.square(weight - back), qtype)
        better = error < least
        least = np.where(better, error, least)
        best = (
            np.where(better, scale, best[0]),
            None if zero is None else np.where(better, zero, best[1]),  # type: ignore[arg-type]
        )
    return best


def group_extremes(weight: np.ndarray, qtype: QType) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of every group, of shape `qtype.scale_shape`."""
    return _grouped(weight, qtype, np.min, np.inf), _grouped(weight, qtype, np.max, -np.inf)


def group_sum(array: np.ndarray, qtype: QType) -> np.ndarray:
    """Sums over every group, of shape `qtype.scale_shape`."""
    return _grouped(array, qtype, np.sum, 0.0)


def _grouped(array: np.ndarray, qtype: QType, reduce, fill: float) -> np.ndarray:
    if qtype.per_tensor:
        return reduce(array)
    shape: list[int] = []
    axes: list[int] = []
    pads: list[tuple[int, int]] = []
    for size, block in zip(array.shape, qtype.block, strict=True):
        block = block or size
        count = -(-size // block)
        pads.append((0, count * block - size))
        axes.append(len(shape) + 1)
        shape += [count, block]
    if any(after for _, after in pads):
        array = np.pad(array, pads, constant_values=fill)
    return reduce(array.reshape(shape), axis=tuple(axes))
