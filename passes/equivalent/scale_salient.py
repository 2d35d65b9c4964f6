"""Scale up the weights that meet large activations before they are rounded in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register

from .diagonal import ROWS, divide, measured, rounded

STEPS = 20
"""Ratios 0, 1/20 ... 19/20 are compared."""
GROUPS = QType.parse("u4@128x1*f32+u4")


@register
@dataclass(frozen=True)
class ScaleSalient(Pass):
    """Multiply a weight by a power of its input's mean magnitude where its codes then err less.

    rewrite:  x = LayerNormalization(h, g, b);             y = x @ w
              -->
              x = LayerNormalization(h, g / s, b / s);     y = x @ (s * w),  s = mean|x|^r
    shapes:   s, g, b [K], of the K inputs of w [K, N]
    options:  w: the type that the weights will be rounded to, as for a K x N matrix; samples: of
              the calibration data, at least, that are looked at; online: where nothing that writes
              x takes 1/s, multiply by it rather than skip
    error:    exact but for rounding; the error of the rounded layers' outputs, on the rows that
              were looked at, is never above that without factors
    raises:   nothing; skips inputs that no ratio helps, with the reason
    source:   AWQ, arXiv:2306.00978, equations 4 and 5; judged by the outputs of all layers that
              read x, not by the block around them
    """

    name: ClassVar[str] = "scale_salient"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    w: QType = GROUPS
    samples: int = 16
    online: bool = False

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for site, seen in measured(
            graph, ctx, "searching ratios", samples=self.samples, rows=ROWS, online=self.online
        ):
            s, ratio = best_ratio(site.tied(seen.mean), seen.rows, site.weight(), self.w)
            if not ratio:
                ctx.skip(site.x, "no ratio lowers the error of its layers' outputs")
                continue
            divide(site, s, ctx, online=self.online)


def factors(mean: np.ndarray, ratio: float) -> np.ndarray:
    """s f64[K] = mean^ratio, floored at 1e-4, with 1 midway between its ends."""
    s = np.maximum(mean.astype(np.float64) ** ratio, 1e-4)
    return s / np.sqrt(s.max() * s.min())


def best_ratio(
    mean: np.ndarray, rows: np.ndarray, weight: np.ndarray, qtype: QType
) -> tuple[np.ndarray, float]:
    """The factors [K] with the least error over the ratios, and which ratio that is."""
    tries = [step / STEPS for step in range(STEPS)]
    errors = [loss(factors(mean, r), rows, weight, qtype) for r in tries]
    best = tries[int(np.argmin(errors))]
    return factors(mean, best), best


def loss(s: np.ndarray, rows: np.ndarray, weight: np.ndarray, qtype: QType) -> float:
    """Mean square of rows @ (Q(s * weight) / s - weight)."""
    column = s[:, None].astype(np.float32)
    change = rounded(weight * column, qtype) / column - weight
    return float(np.square(rows @ change, dtype=np.float64).mean())
