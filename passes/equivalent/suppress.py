"""Scale down just the channels that pass a threshold, which is searched by the outputs' error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import formats
from ir.graph import Graph
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register

from .diagonal import ROWS, Channels, Site, divide, measured, rounded

TRIES = 40
"""Thresholds that are compared, at equal ratios from the largest magnitude down to that of the
channel in the middle."""
WEIGHTS = QType.parse("i8@0x1*f32")
VALUES = QType.parse("u8@0*f32+u8")


@register
@dataclass(frozen=True)
class Suppress(Pass):
    """Divide every channel that exceeds a threshold so that it does not, and scale its weights.

    rewrite:  x = LayerNormalization(h, g, b);             y = x @ w
              -->
              x = LayerNormalization(h, g / s, b / s);     y = x @ (s * w)
              with s = max(1, max x / t, -min x / t)
    shapes:   s, g, b [K], of the K inputs of w [K, N]
    options:  w, a: the types that weights (as for a K x N matrix) and values will be rounded to; a
              of one scale for all, or one a row (i8@1x0*f32); samples: of the calibration data, at
              least, that are looked at; online: where nothing that writes x takes 1/s, multiply by
              it rather than skip
    error:    exact but for rounding; the error of the rounded layers' outputs, on the rows that
              were looked at, is never above that without factors
    raises:   nothing; skips inputs that no threshold helps, with the reason
    source:   Outlier Suppression+, arXiv:2304.09145, equations 8 to 10; the threshold moves by
              equal ratios, and the error is that of all layers that read x, not of the attention
    """

    name: ClassVar[str] = "suppress"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    w: QType = WEIGHTS
    a: QType = VALUES
    samples: int = 16
    online: bool = False

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for site, seen in measured(
            graph, ctx, "searching thresholds", samples=self.samples, rows=ROWS, online=self.online
        ):
            s = self._best(site, seen)
            if (s == 1).all():
                ctx.skip(site.x, "no threshold lowers the error of its layers' outputs")
                continue
            divide(site, s, ctx, online=self.online)

    def _best(self, site: Site, seen: Channels) -> np.ndarray:
        weight, top = site.weight(), site.tied(seen.top)
        tries = [np.maximum(1, top / t) for t in thresholds(top)]
        errors = [loss(s, seen, weight, self.w, self.a) for s in tries]
        return tries[int(np.argmin(errors))]


def thresholds(top: np.ndarray) -> np.ndarray:
    """From the largest magnitude, which leaves all channels alone, downwards."""
    most, middle = float(top.max()), float(np.median(top))
    if most == 0:
        return np.ones(1)
    return np.geomspace(most, max(middle, most / 1e3), TRIES)


def loss(s: np.ndarray, seen: Channels, weight: np.ndarray, w: QType, a: QType) -> float:
    """Mean square of Q(rows / s) @ Q(s * weight) - rows @ weight."""
    factors = s.astype(np.float32)
    scaled = rounded(weight * factors[:, None], w)
    coded = rounded_values(seen.rows / factors, seen.low / factors, seen.high / factors, a)
    return float(np.square(coded @ scaled - seen.rows @ weight, dtype=np.float64).mean())


def rounded_values(rows: np.ndarray, low, high, qtype: QType) -> np.ndarray:
    """Values [T, K] after rounding: over the range [low, high] of all, or each row over its own."""
    if qtype.per_tensor:
        scale, zero = formats.scale_and_zero(low.min(), high.max(), qtype)
        return formats.decode(formats.encode(rows, scale, zero, qtype), scale, zero, qtype)
    return rounded(rows, qtype)
