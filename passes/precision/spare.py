"""Make the few layers float again whose codes cost the outputs most."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from calib.stats import Bins
from calib.stats.clip_search import range_sqnr
from ir import ops
from ir.errors import PassError
from ir.graph import Graph, array
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, Stat, register
from passes.ranges import coded_range
from passes.sites import Linear, linears, make_float

from .what_if import WhatIf, measurable


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
        own = {site.node.name: site for site in linears(ctx.teacher())}
        waiting, budget = self._waiting(graph, own, ctx)
        if not waiting:
            return
        what_if = WhatIf(ctx.teacher(), list(islice(iter(ctx.data), self.samples)))
        first, freed = what_if.measure(graph, [(s, own[s.node.name]) for s in waiting])
        if not np.isfinite(first):
            return  # nothing is lost, or nothing tells
        present = first
        for site in sorted(waiting, key=lambda s: -freed[s.node.name or ""]):
            original, now = own[site.node.name], freed[site.node.name or ""]
            refusal = self._refusal(now - first, _weights(original), budget)
            if refusal is None and present is not first:
                now = what_if.measure(graph, [(site, original)])[1][site.node.name or ""]
                if now - present < self.gain / 2:
                    refusal = "layers freed before it already won its loss back"
            if refusal is not None:
                ctx.skip(site.node, refusal)
                continue
            make_float(ctx.edit, site, original)
            ctx.note(f"%{site.y.name} stays float: {present:.1f} -> {now:.1f} dB")
            ctx.did(site.node)
            budget, present = budget - _weights(original), now

    def _waiting(
        self, graph: Graph, own: dict[str | None, Linear], ctx: Ctx
    ) -> tuple[list[Linear], float]:
        """Layers to try, those whose input suffers most first; how many weights may be freed."""
        found: list[tuple[float, Linear]] = []
        total = 0
        for site in linears(graph):
            if ops.decode_of(site.weight) is None:
                continue
            if site.node.name not in own:
                ctx.skip(site.node, "the float model has no such layer")
                continue
            total += _weights(own[site.node.name])
            db = input_sqnr(site, ctx)
            if site.node.graph is not graph.graph:
                ctx.skip(site.node, "it stands in a body: layers there are not tried")
            elif not measurable(own[site.node.name]):
                ctx.skip(site.node, "the float layer reads more than one computed value")
            elif db is None:
                ctx.skip(site.node, "its input has no codes of a fixed scale with a histogram")
            else:
                found.append((db, site))
        found.sort(key=lambda pair: pair[0])
        for db, site in found[self.tries :]:
            ctx.skip(site.node, f"not tried: its input's codes have {db:.1f} dB, others fewer")
        return [site for _, site in found[: self.tries]], self.share * total

    def _refusal(self, gain: float, size: int, budget: float) -> str | None:
        if gain < self.gain:
            return f"float would win back {gain:.1f} dB, less than {self.gain:g}"
        if size > budget:
            return f"float would win back {gain:.1f} dB, but the share of weights is used up"
        return None


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


def _weights(site: Linear) -> int:
    return int(np.prod(site.weight.shape.numpy())) if site.weight.shape is not None else 0
