"""Measure the values that later steps will need, in one walk over the data."""

from __future__ import annotations

from collections.abc import Iterator
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
        wants: dict[str, list[accumulators.Stat]] = {}
        keys: dict[str, list[Stat]] = {}
        for name, stat, made in self._wanted(graph, ctx):
            wants.setdefault(name, []).append(made)
            keys.setdefault(name, []).append(stat)
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
            if any(accumulator.batches for accumulator in made):
                ctx.did(f"%{name}")
            else:
                ctx.skip(f"%{name}", "the data never reached it, or it was wholly masked")

    def _wanted(self, graph: Graph, ctx: Ctx) -> Iterator[tuple[str, Stat, accumulators.Stat]]:
        """(value name, statistic, fresh accumulator)."""
        if self._per_layer:
            for value, axis in _layer_inputs(graph, ctx):
                for stat in self._per_layer:
                    yield value.name or "", stat, accumulators.BY_NAME[stat.value](axis=axis)
        ranges = [stat for stat in self.stats if stat not in _LINEAR_INPUTS]
        if not ranges:
            return
        for value in candidates(graph, ctx.target):
            for stat in ranges:
                yield value.name or "", stat, accumulators.BY_NAME[stat.value]()

    @property
    def _per_layer(self) -> list[Stat]:
        return [stat for stat in self.stats if stat in _LINEAR_INPUTS]


def _layer_inputs(graph: Graph, ctx: Ctx) -> Iterator[tuple[Value, int]]:
    """Inputs of linear layers with the axis that is contracted (from the front where known)."""
    found: dict[str, tuple[Value, set[int]]] = {}
    for site in linears(graph):
        axes, axis = rank(site.x), site.channel_axis
        if axis < 0 and axes is not None:
            axis += axes
        found.setdefault(site.x.name or "", (site.x, set()))[1].add(axis)
    for value, channels in found.values():
        if len(channels) > 1:
            ctx.skip(value, f"layers read it along different axes {sorted(channels)}")
        else:
            yield value, channels.pop()
