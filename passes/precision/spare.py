"""Make the few layers float again whose codes cost the outputs most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from calib.stats import Bins
from calib.stats.clip_search import range_sqnr
from ir import ops
from ir.edit import Edit
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
    raises:   nothing; a layer that wins back less is reported with its figure
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
        assert ctx.float_graph is not None
        probes = list(islice(iter(ctx.data or ()), self.samples))
        originals = {site.node.name: site for site in linears(ctx.float_graph)}
        sites = [s for s in linears(graph) if ops.decode_of(s.weight) is not None]
        budget = self.share * sum(
            _weights(originals[s.node.name]) for s in sites if s.node.name in originals
        )
        waiting = [s for s in sites if s.node.name in originals and input_sqnr(s, ctx) is not None]
        waiting = sorted(waiting, key=lambda s: input_sqnr(s, ctx) or 0.0)[: self.tries]
        if not probes or not waiting:
            return
        reference = evaluate.outputs_of(ctx.float_graph, probes)
        present = self._db(graph, probes, reference)
        trials = []
        for number, site in enumerate(waiting, 1):
            ctx.progress("measuring layers", number, len(waiting))
            freed = self._db(_freed(graph, [site], originals), probes, reference)
            trials.append((freed - present, site))
        for gain, site in sorted(trials, key=lambda trial: -trial[0]):
            size = _weights(originals[site.node.name])
            if gain < self.gain:
                ctx.skip(site.node, f"float would win back {gain:.1f} dB, less than {self.gain:g}")
            elif size > budget:
                ctx.skip(
                    site.node,
                    f"float would win back {gain:.1f} dB, but the share of weights is used up",
                )
            else:
                now = self._db(_freed(graph, [site], originals), probes, reference)
                if now - present < self.gain / 2:
                    ctx.skip(site.node, "layers freed before it already won its loss back")
                    continue
                make_float(ctx.edit, site, originals[site.node.name])
                ctx.note(f"%{site.y.name} stays float: {present:.1f} -> {now:.1f} dB")
                ctx.did(site.node)
                budget, present = budget - size, now

    @staticmethod
    def _db(graph: Graph, probes: Sequence, reference: evaluate.Outputs) -> float:
        found = evaluate.sqnr(reference, evaluate.outputs_of(graph, probes))
        return float(np.mean(list(found.values())))


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
