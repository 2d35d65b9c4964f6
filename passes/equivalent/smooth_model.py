"""One strength of smoothing for the whole model, chosen by the error of the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from backends.torch import Executor
from ir.graph import Graph, array
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register
from passes.padding import valid_rows, without_padding
from passes.probe import first_samples

from .diagonal import Channels, Site, balanced, divide, matrix, observed, rounded, sites, unusable

STEPS = 20
"""Strengths 0, 1/20 ... 1 are compared, and none at all."""
GROUPS = QType.parse("u4@128x1*f32+u4")
Feeds = Mapping[str, np.ndarray]


@register
@dataclass(frozen=True)
class SmoothModel(Pass):
    """Smooth all inputs of linear layers by one exponent, that which the rounded model errs least
    with.

    rewrite:  x = LayerNormalization(h, g, b);             y = x @ w
              -->
              x = LayerNormalization(h, g / s, b / s);     y = x @ (s * w)
              with s = max|x|^alpha / max|w|^(1 - alpha)
    shapes:   s, g, b [K], of the K inputs of w [K, N]
    options:  w: the type that the weights will be rounded to, as for a K x N matrix (values stay
              float); samples: of the calibration data, at least, that give the ranges; judged: how
              many of them the model is run on for every exponent; online: where nothing that
              writes x takes 1/s, multiply by it rather than skip
    error:    exact but for rounding; the rounded model's error on the judged samples is never above
              that without factors
    raises:   nothing; skips inputs whose writers take no factor or whose weight others read, and
              all of them where no exponent helps, with the reason
    source:   SmoothQuant+, arXiv:2312.03788; the error is that of the model's outputs
    """

    name: ClassVar[str] = "smooth_model"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    w: QType = GROUPS
    samples: int = 16
    judged: int = 4
    online: bool = False

    def run(self, graph: Graph, ctx: Ctx) -> None:
        probes = first_samples(ctx.data or (), self.samples)
        found = sites(graph)
        if not found or not probes:
            return
        seen = observed(graph, [site.x for site in found], probes)
        chosen = []
        for site in found:
            reason = unusable(site, seen) or self._refusal(site)
            if reason:
                ctx.skip(site.x, reason)
            else:
                chosen.append(site)
        if not chosen:
            return
        judge = Judge(graph, first_samples(probes, self.judged, graph))
        tries = [step / STEPS for step in range(STEPS + 1)]
        least, best = judge.error(chosen, [None] * len(chosen), self.w), None
        for done, alpha in enumerate(tries):
            ctx.progress("searching the strength", done, len(tries))
            error = judge.error(chosen, factors(chosen, seen, alpha), self.w)
            if error < least:
                least, best = error, alpha
        if best is None:
            for site in chosen:
                ctx.skip(site.x, "no strength lowers the error of the model")
            return
        ctx.note(f"strength {best:g}")
        for site, s in zip(chosen, factors(chosen, seen, best), strict=True):
            divide(site, s, ctx, online=self.online)

    def _refusal(self, site: Site) -> str:
        if site.stream is None and not self.online:
            return site.refusal
        if any(len(layer.weight.uses()) > 1 for layer in site.layers):
            return "others read its weight, too"
        return ""


def factors(chosen: Sequence[Site], seen: Mapping[str, Channels], alpha: float) -> list[np.ndarray]:
    """s f64[K] of every site."""
    return [
        balanced(
            site.tied(seen[site.x.name or ""].top),
            site.tied(np.abs(site.weight()).max(axis=1)),
            alpha,
        )
        for site in chosen
    ]


class Judge:
    """How far the outputs move when weights are rounded: one executor, and what it gave in float.

    A model whose weights are Q(s * w) / s computes what the smoothed and rounded one does, for
    values stay float: no graph is rewritten for a candidate.
    """

    def __init__(self, graph: Graph, probes: Sequence[Feeds]) -> None:
        self.executor = Executor(graph)
        self.probes = probes
        self.valid = [valid_rows(graph, feeds) for feeds in probes]
        self.before = [[*self._outputs(i, {})] for i in range(len(probes))]

    def error(
        self, chosen: Sequence[Site], factors: Sequence[np.ndarray | None], qtype: QType
    ) -> float:
        """Squared error of every floating output over its squared numbers, summed over outputs."""
        params = {}
        for site, s in zip(chosen, factors, strict=True):
            for layer in site.layers:
                held = changed(matrix(layer), s, qtype)
                held = held if layer.inputs == (0,) else held.T
                own = array(layer.weight)
                kind = held.dtype if own is None else own.dtype
                params[layer.weight.name or ""] = torch.from_numpy(np.array(held, kind, order="C"))
        parts = [[*self._outputs(i, params)] for i in range(len(self.probes))]
        total = 0.0
        for before, after in zip(zip(*self.before, strict=True), zip(*parts, strict=True),
                                 strict=True):  # fmt: skip
            moved = sum(np.square(a - b).sum() for a, b in zip(after, before, strict=True))
            total += float(moved) / max(sum(float(np.square(b).sum()) for b in before), 1e-30)
        return total if np.isfinite(total) else np.inf

    def _outputs(self, index: int, params: Mapping[str, torch.Tensor]) -> Iterable[np.ndarray]:
        valid = self.valid[index]
        for found in self.executor.run(self.probes[index], params=params).values():
            if isinstance(found, torch.Tensor) and found.is_floating_point():
                data = found.numpy().astype(np.float64)
                yield without_padding(data, valid) if valid is not None else data


def changed(weight: np.ndarray, s: np.ndarray | None, qtype: QType) -> np.ndarray:
    """Q(s * weight) / s."""
    if s is None:
        return rounded(weight, qtype)
    column = s[:, None].astype(np.float32)
    return rounded(weight * column, qtype) / column
