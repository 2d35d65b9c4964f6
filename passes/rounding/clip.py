"""Choose better ranges than the extremes, for values and optionally for weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import ops
from ir.errors import PassError
from ir.formats import integer
from ir.graph import Graph, Node, array, constant
from ir.qtype import QType
from ir.verify import Stage

from ..core import Ctx, Effect, Pass, Stat, register
from ..ranges import Method, searched_range

SHRINKS = 1.0 - np.arange(40) / 50.0
"""Shares of the full range that the weight search tries (card observers: steps of 2 %)."""
FINE = 9
"""Tried for 8 bits and more, where the best share is never far from 1."""


@register
@dataclass(frozen=True)
class Clip(Pass):
    """Shrink the ranges of coded values so that rounding and clipping errors balance.

    rewrite:  Encode(x, s, z) --> Encode(x, s', z'), and the same in its Decodes
    shapes:   s, z unchanged
    options:  method: minmax, percentile, entropy or mse; percent: the share kept by percentile, in %;
              weights: also search each weight group's range for the least squared error
    error:    the one chosen; never a range wider than the data's
    raises:   PassError without a collected histogram; skips values with a dynamic scale
    source:   card observers; entropy: TensorRT 2017; mse: as in AdaRound, arXiv:2004.10568
    """

    name: ClassVar[str] = "clip"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})
    needs: ClassVar[frozenset[Stat]] = frozenset({Stat.HISTOGRAM})

    method: Method = Method.MSE
    percent: float = 99.99
    weights: bool = False

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise ValueError("percent must lie in (50, 100]")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for encode in [n for n in graph.graph.all_nodes() if ops.is_op(n, "Encode")]:
            source, qtype = encode.inputs[0], ops.qtype_of(encode)
            if constant(source) is not None:
                if self.weights:
                    self._clip_weight(encode, qtype, ctx)
                continue
            if constant(encode.inputs[1]) is None:
                ctx.skip(source, "its scale is computed at run time")
            elif not qtype.per_tensor:
                ctx.skip(source, "its scale is not one number")
            elif source is not None and source.name in ctx.stats.get(Stat.HISTOGRAM, {}):
                low, high = searched_range(ctx, source.name, self.method, qtype, self.percent)
                self._set(encode, *integer.scale_and_zero(low, high, qtype), ctx)
                ctx.did(source)
            else:
                ctx.skip(source, "no histogram was collected for it")

    def _clip_weight(self, encode: Node, qtype: QType, ctx: Ctx) -> None:
        weight = array(encode.inputs[0])
        if weight is None or not qtype.integer:
            raise PassError("cannot search the range of this weight", at=encode)
        scale, zero = best_range(weight.astype(np.float32, copy=False), qtype)
        self._set(encode, scale, zero, ctx)
        ctx.did(encode.inputs[0])

    @staticmethod
    def _set(encode: Node, scale: np.ndarray, zero: np.ndarray | None, ctx: Ctx) -> None:
        name = encode.inputs[0].name
        parts = [ctx.edit.constant(np.asarray(scale, np.float32), f"{name}.scale")]
        if zero is not None:
            parts.append(ctx.edit.constant(np.asarray(zero), f"{name}.zero"))
        old = [v for v in encode.inputs[1:] if v is not None]
        for node in [encode, *(use.node for use in encode.outputs[0].uses())]:
            for index, part in enumerate(parts, 1):
                ctx.edit.set_input(node, index, part)
        for value in old:
            ctx.edit.drop_constant(value)


def best_range(weight: np.ndarray, qtype: QType) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero per group with the least squared error over `SHRINKS` of the group's range."""
    low, high = group_extremes(weight, qtype)
    best: tuple[np.ndarray, np.ndarray | None] = integer.scale_and_zero(low, high, qtype)
    least = np.full(np.shape(low), np.inf)
    for share in SHRINKS[: FINE if qtype.bits >= 8 else None]:
        scale, zero = integer.scale_and_zero(low * share, high * share, qtype)
        back = integer.decode(integer.encode(weight, scale, zero, qtype), scale, zero, qtype)
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
