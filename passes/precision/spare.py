"""Make the few layers float again whose codes cost the outputs most."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from calib.stats import Bins
from calib.stats.clip_search import range_sqnr
from ir import ops
from ir.edit import Edit
from ir.errors import PassError
from ir.graph import Graph, array, clone
from ir.verify import Stage
from passes import evaluate
from passes.core import Ctx, Effect, Pass, Stat, register
from passes.ranges import coded_range
from passes.sites import Linear, linears, make_float


@register
@dataclass(frozen=True)
class Spare(Pass):
    """Free layers from their codes, the most harmful first, as long as each wins back enough.

    rewrite:  y = Decode(Encode(x)) @ Decode(wq) --> y = x @ w
    shapes:   w as in the float model
    options:  gain: least SQNR in dB of the outputs that a freed layer must win back; share: largest
              part of all weights that may become float again; tries: layers measured, those first
              whose input suffers most from its codes; samples: of the calibration data that are
              measured on
    error:    smaller by at least `gain` dB per freed layer, on the samples
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
    share: float = 0.1
    tries: int = 8
    samples: int = 1

    def run(self, graph: Graph, ctx: Ctx) -> None:
        if ctx.data is None:
            raise PassError("there is no data to measure layers on", hint="pass data=... (--calib)")
        originals = {site.node.name: site for site in linears(ctx.teacher())}
        waiting, budget = self._waiting(graph, originals, ctx)
        if not waiting:
            return
        measure = _Measure(graph, ctx.teacher(), list(islice(iter(ctx.data), self.samples)))
        trials = []
        for number, site in enumerate(waiting, 1):
            ctx.progress("measuring layers", number, len(waiting))
            trials.append((measure.freed(site, originals) - measure.present, site))
        for gain, site in sorted(trials, key=lambda trial: -trial[0]):
            size = _weights(originals[site.node.name])
            told = f"float would win back {gain:.1f} dB"
            if gain < self.gain:
                ctx.skip(site.node, f"{told}, less than {self.gain:g}")
                continue
            if size > budget:
                ctx.skip(site.node, f"{told}, but the share of weights is used up")
                continue
            now = measure.freed(site, originals)
            if now - measure.present < self.gain / 2:
                ctx.skip(site.node, "layers freed before it already won its loss back")
                continue
            make_float(ctx.edit, site, originals[site.node.name])
            ctx.note(f"%{site.y.name} stays float: {measure.present:.1f} -> {now:.1f} dB")
            ctx.did(site.node)
            budget, measure.present = budget - size, now

    def _waiting(
        self, graph: Graph, originals: dict[str | None, Linear], ctx: Ctx
    ) -> tuple[list[Linear], float]:
        """Layers to try, those whose input suffers most first; how many weights may be freed."""
        found: list[tuple[float, Linear]] = []
        total = 0
        for site in linears(graph):
            if ops.decode_of(site.weight) is None:
                continue
            if site.node.name not in originals:
                ctx.skip(site.node, "the float model has no such layer")
                continue
            total += _weights(originals[site.node.name])
            db = input_sqnr(site, ctx)
            if db is None:
                ctx.skip(site.node, "its input has no codes of a fixed scale with a histogram")
            else:
                found.append((db, site))
        found.sort(key=lambda pair: pair[0])
        for db, site in found[self.tries :]:
            ctx.skip(site.node, f"not tried: its input's codes have {db:.1f} dB, others fewer")
        return [site for _, site in found[: self.tries]], self.share * total


class _Measure:
    """Mean SQNR over the outputs, as the graph is and with a layer freed."""

    def __init__(self, graph: Graph, teacher: Graph, probes: list) -> None:
        self._graph, self._probes = graph, probes
        self._reference = evaluate.outputs_of(teacher, probes)
        self.present = self._db(graph)

    def freed(self, site: Linear, originals: dict[str | None, Linear]) -> float:
        """In dB, with one more layer float."""
        return self._db(_freed(self._graph, [site], originals))

    def _db(self, graph: Graph) -> float:
        return evaluate.mean_db(
            evaluate.sqnr(self._reference, evaluate.outputs_of(graph, self._probes))
        )


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


def _freed(graph: Graph, sites: list[Linear], originals: dict[str | None, Linear]) -> Graph:
    copy = clone(graph)
    edit = Edit(copy)
    named = {site.node.name: site for site in linears(copy)}
    for site in sites:
        make_float(edit, named[site.node.name], originals[site.node.name])
    edit.finish()
    return copy


def _weights(site: Linear) -> int:
    return int(np.prod(site.weight.shape.numpy())) if site.weight.shape is not None else 0
