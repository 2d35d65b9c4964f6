"""Measure the values that later steps will need, in one walk over the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import calib
from calib import stats as accumulators
from ir.analysis.masks import masked_values
from ir.errors import PassError
from ir.graph import Graph, Value, rank
from ir.verify import Stage

from .core import Ctx, Effect, Pass, Stat, register
from .placement import ACTIVATION, WEIGHT, candidates, plan
from .sites import SOUGHT, linears

_PER_CHANNEL = {Stat.MOMENTS}
_LINEAR_INPUTS = {Stat.MOMENTS, Stat.GRAM}


@register
@dataclass(frozen=True)
class Collect(Pass):
    """Run the calibration data through the graph and keep statistics, never activations.

    rewrite:  none; ctx.stats[stat][value name] is filled
    shapes:   per tensor for ranges; per input channel for moments; [K, K] for gram
    options:  stats: names of statistics, for example [histogram moments]
    error:    none
    raises:   DataError on NaN, Inf or no batches; PassError when there is nothing to observe
    source:   card observers; X^T X as in GPTQ, arXiv:2210.17323
    """

    name: ClassVar[str] = "collect"
    effect: ClassVar[Effect] = Effect.NOTES
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT, Stage.CODED})
    sought: ClassVar[str] = SOUGHT

    stats: tuple[Stat, ...] = (Stat.HISTOGRAM,)

    def gives(self) -> frozenset[Stat]:
        return frozenset(self.stats)

    def run(self, graph: Graph, ctx: Ctx) -> None:
        if ctx.data is None:
            raise PassError("there is no calibration data", hint="pass data=... (--calib)")
        inputs = {site.x.name: site.x for site in linears(graph)}
        axes = {site.x.name: site.channel_axis for site in linears(graph)}
        coded = {value.name: value for value in candidates(graph, ctx.target)}
        wants: dict[str, list[accumulators.Stat]] = {}
        keys: dict[str, list[Stat]] = {}
        for stat in self.stats:
            for name, value in (inputs if stat in _LINEAR_INPUTS else coded).items():
                made = _accumulator(stat, value, axes.get(name))
                wants.setdefault(name, []).append(made)  # type: ignore[arg-type]
                keys.setdefault(name, []).append(stat)  # type: ignore[arg-type]
        if not wants:
            for node, reason in plan(graph, ctx.target, ACTIVATION, WEIGHT).refused:
                ctx.skip(node, reason)
            return
        filled = calib.observe(
            graph, ctx.data, wants, masks=masked_values(graph),
            progress=lambda done, total: ctx.progress("calibrating", done, total),
            checkpoint=ctx.checkpoint,
        )  # fmt: skip
        for name, made in filled.items():
            for stat, accumulator in zip(keys[name], made, strict=True):
                if accumulator.batches:
                    ctx.stats.setdefault(stat, {})[name] = accumulator
            ctx.did(f"%{name}")


def _accumulator(stat: Stat, value: Value, axis: int | None) -> accumulators.Stat:
    made = accumulators.BY_NAME[stat.value]
    if stat not in _LINEAR_INPUTS:
        return made()
    axes = rank(value)
    return made(axis=axis if axis is None or axis >= 0 or axes is None else axes + axis)
