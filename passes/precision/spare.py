"""Make the few layers float again whose codes cost the outputs most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from calib.stats import Bins
from calib.stats.clip_search import range_sqnr
from ir import ops
from ir.errors import PassError
from ir.graph import Graph, array
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, Stat, register
from passes.probe import first_samples
from passes.ranges import coded_range
from passes.sites import Linear, linears

from .candidates import Layer, candidates
from .free import float_weight, free_values, reads_codes
from .measure import Measure, linear_of

STORED = 1.0
"""Weights of freed layers stay codes when all of them in float would win back less than this, in
dB: the file stays small, and the target decodes them when it loads the model."""


@register
@dataclass(frozen=True)
class Spare(Pass):
    """Free layers from their codes, those that win back most per work first.

    rewrite:  y = Decode(Encode(x)) @ Decode(wq) --> y = x @ w   (or x @ Decode(wq))
    shapes:   w as in the float model
    options:  gain: least SQNR in dB of the outputs that a freed layer, or group of layers, must win
              back; share: largest part of all multiply-accumulates that may become float again;
              tries: layers measured, those first whose input suffers most from its codes; samples:
              of the calibration data that are measured on; enough: SQNR in dB of the
              outputs from which on no layer is freed, since floats cost time and size
    error:    smaller by at least `gain` dB for what is freed first, half of it for what follows, on
              the samples
    raises:   PassError without data or the float model; a layer that wins back less is reported
              with its figure
    source:   the request in microsoft/onnxruntime#13863: "I found the bad layer, how do I keep it
              float?"
    """

    name: ClassVar[str] = "spare"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})
    needs: ClassVar[frozenset[Stat]] = frozenset({Stat.HISTOGRAM})
    optional: ClassVar[bool] = True

    gain: float = 0.5
    share: float = 0.2
    tries: int = 8
    samples: int = 2
    enough: float = 30.0

    def run(self, graph: Graph, ctx: Ctx) -> None:
        if ctx.data is None:
            raise PassError("there is no data to measure layers on", hint="pass data=... (--calib)")
        probes = first_samples(ctx.data, self.samples, graph)
        coded = [s for s in linears(graph) if ops.decode_of(s.weight) is not None]
        if not probes or not coded:
            return
        measure = Measure(graph, ctx.teacher(), probes)
        present = measure.present
        if present >= self.enough:
            ctx.note(f"the outputs have {present:.1f} dB: enough, no layer is tried")
            return
        layers = self._layers(coded, measure, ctx)
        chosen = self._choose(layers, measure, present, ctx) if layers else set()
        if chosen:
            self._free(graph, coded, layers, chosen, measure, ctx)

    def _layers(self, coded: list[Linear], measure: Measure, ctx: Ctx) -> list[Layer]:
        originals = {site.y.name: site for site in linears(ctx.teacher())}
        total = sum(measure.macs.get(site.y.name or "", 0) for site in coded) or 1
        return [
            Layer(site, originals[site.y.name], measure.macs[site.y.name or ""] / total,
                  input_sqnr(site, ctx))
            for site in coded
            if site.y.name in originals and site.y.name in measure.macs and reads_codes(site)
        ]  # fmt: skip

    def _choose(self, layers: list[Layer], measure: Measure, present: float, ctx: Ctx) -> set[str]:
        """Names of the layers to free: the best per work of all that were measured, one by one.

        present: SQNR in dB with none of them free.
        """
        cost = {layer.name: layer.share for layer in layers}
        groups = candidates(layers, ctx.teacher(), self.share, self.tries)
        trials = []
        for number, group in enumerate(groups, 1):
            ctx.progress("measuring layers", number, len(groups))
            trials.append((measure.db(group) - present, group))
        work = {group: max(sum(cost[name] for name in group), 1e-3) for group in groups}
        chosen: set[str] = set()
        told: dict[str, str] = {}
        for gain, group in sorted(trials, key=lambda trial: -trial[0] / work[trial[1]]):
            wider = chosen | group
            if wider == chosen:
                continue
            if present >= self.enough:
                break
            if gain < self.gain:
                reason = f"float would win back {gain:.1f} dB, less than {self.gain:g}"
            elif sum(cost[name] for name in wider) > self.share:
                reason = f"float would win back {gain:.1f} dB, but the share of work is used up"
            elif (now := measure.db(wider)) - present < self.gain / 2:
                reason = "layers freed before it already won its loss back"
            else:
                names = ", ".join(f"%{name}" for name in sorted(group - chosen))
                ctx.note(f"{names} stays float: {present:.1f} -> {now:.1f} dB")
                chosen, present = wider, now
                continue
            if len(group) == 1:
                told[next(iter(group))] = reason
        for layer in layers:
            if layer.name not in chosen:
                reason = told.get(layer.name) or _untried(layer, self.share)
                ctx.skip(layer.site.node, reason)
        return chosen

    def _free(
        self, graph: Graph, coded: list[Linear], layers: list[Layer], chosen: set[str],
        measure: Measure, ctx: Ctx,
    ) -> None:  # fmt: skip
        stored = measure.db(chosen) - measure.db(chosen, stored=chosen) < STORED
        free_values(ctx.edit, graph, coded, chosen)
        for layer in layers:
            if layer.name not in chosen:
                continue
            site = linear_of(layer.site.node)
            if not stored or reads_codes(site):
                float_weight(ctx.edit, site, layer.original)
            ctx.did(site.node)


def _untried(layer: Layer, share: float) -> str:
    if layer.db is None:
        return "its input has no codes of a fixed scale with a histogram"
    if layer.share > share:
        return (
            f"it does {layer.share:.0%} of the work, more than the share of work that may be float"
        )
    return f"not tried alone: its input's codes have {layer.db:.1f} dB, others fewer"


def input_sqnr(site: Linear, ctx: Ctx) -> float | None:
    """SQNR in dB of the codes of a layer's input, from its histogram; None when it has no fixed
    codes."""
    encode = ops.encode_of(site.x)
    if encode is None or encode.inputs[0] is None or array(encode.inputs[1]) is None:
        return None
    accumulator = ctx.stats.get(Stat.HISTOGRAM, {}).get(encode.inputs[0].name or "")
    if accumulator is None:
        return None
    bins: Bins = accumulator.result().bins[0]
    qtype = ops.qtype_of(encode)
    return range_sqnr(bins, *coded_range(encode, qtype), 1 << qtype.bits)
