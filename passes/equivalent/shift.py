"""Subtract the centre of every channel before it is coded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.analysis.streams import streams
from ir.fold import fold_shift, shift_refusal
from ir.graph import Graph, rank
from passes.core import Ctx, Effect, Pass, register
from passes.probe import first_samples

from .diagonal import Channels, observed


@register
@dataclass(frozen=True)
class Shift(Pass):
    """Make the range of every channel symmetric: writers' biases lose its centre, readers' gain it.

    rewrite:  x = LayerNormalization(h, g, b);             y = x @ w + c
              -->
              x = LayerNormalization(h, g, b - z);         y = x @ w + (c + z @ w)
    shapes:   z, b [K]; w [K, N]; c [N], made where there was none
    options:  gain: least fall in dB of the whole value's range that pays; samples: of the
              calibration data, at least, that give the ranges
    error:    exact but for rounding; computed in float64, cast once
    raises:   nothing; skips streams that take no shift or win less, with the reason
    source:   Outlier Suppression+, arXiv:2304.09145, equations 3 and 6
    """

    name: ClassVar[str] = "shift"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    gain: float = 1.0
    samples: int = 16

    def run(self, graph: Graph, ctx: Ctx) -> None:
        found = []
        for stream in streams(graph):
            last = (rank(stream.value) or 0) - 1
            reason = shift_refusal(stream, np.zeros(stream.channels))
            if not reason and (stream.axis != last or stream.index is not None):
                reason = "its channels are not those of its last axis, each its own"
            if reason:
                ctx.skip(stream.value, reason)
            else:
                found.append(stream)
        probes = first_samples(ctx.data or (), self.samples)
        if not found or not probes:
            return
        seen = observed(graph, [stream.value for stream in found], probes)
        for stream in found:
            here = seen.get(stream.value.name or "")
            fall = narrowing(here) if here is not None else 0.0
            if here is None or fall < self.gain:
                ctx.skip(stream.value, f"its range would fall by {fall:.1f} dB, "
                         f"less than {self.gain:g}" if here else "no data reached it")  # fmt: skip
                continue
            site = stream.value.name
            fold_shift(stream, centre(here), ctx.edit)
            ctx.did(f"%{site}")


def centre(channels: Channels) -> np.ndarray:
    """z f64[K] = (max + min) / 2 of every channel."""
    return (channels.low.astype(np.float64) + channels.high) / 2


def narrowing(channels: Channels) -> float:
    """By how many dB the range of all channels together, zero included, falls."""
    before = max(float(channels.high.max()), 0.0) - min(float(channels.low.min()), 0.0)
    after = float((channels.high - channels.low).max())
    return 20 * np.log10(before / after) if after > 0 else 0.0
