"""Give consecutive layers weights of one range, channel by channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.analysis.streams import Port, Stream, streams
from ir.analysis.streams.ports import LINEAR
from ir.fold import fold_scale, scale_refusal
from ir.fold.tensors import numbers, spread
from ir.graph import Graph
from passes.core import Ctx, Effect, Pass, register

Weights = dict[tuple[int, int], np.ndarray]
"""(id of a node, its input) -> the weight as it would be, f64."""
ENOUGH = 1e-4
"""Factors this near to 1 end the rounds."""


@register
@dataclass(frozen=True)
class Equalize(Pass):
    """Scale every channel between two linear layers so that both weights have one range there.

    rewrite:  y = Relu(x @ w + b) @ v
              -->
              y = Relu(x @ (w / s) + b / s) @ (s * v),  s = sqrt(max|w| / max|v|) of each channel
    shapes:   s [C], one per channel of the stream; w [K, C], b [C], v [C, N]; Conv alike, depthwise
              ones on both sides
    options:  rounds: how often all streams are visited at most, for a weight stands between two
    error:    exact but for rounding; computed in float64, cast once
    raises:   nothing; skips streams that no scale passes, or that no linear layer writes, with the
              reason; a channel that is zero on one side keeps its scale
    source:   DFQ, arXiv:1906.04721, equation 11 (cross-layer equalization)
    """

    name: ClassVar[str] = "equalize"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True
    sought: ClassVar[str] = "channels that a linear layer writes and another reads"

    rounds: int = 50

    def run(self, graph: Graph, ctx: Ctx) -> None:
        chosen = []
        for stream in streams(graph):
            reason = refusal(stream)
            if reason:
                ctx.skip(stream.value, reason)
            else:
                chosen.append(stream)
        for stream, s in zip(chosen, balanced(chosen, self.rounds), strict=True):
            if np.abs(s - 1).max(initial=0) > ENOUGH:
                fold_scale(stream, s, ctx.edit)
            ctx.did(stream.value)


def refusal(stream: Stream) -> str:
    """Why a stream cannot be equalized, or ''."""
    reason = scale_refusal(stream, np.ones(stream.channels))
    if reason:
        return reason
    if stream.pair is not None:
        return "it is contracted with another activation"
    if not layers(stream.writers):
        return "no linear layer writes its channels"
    return ""


def layers(ports: Iterable[Port]) -> list[Port]:
    """The ports that are weights of linear layers: those that are rounded."""
    return [p for p in ports if p.role == "weight" and p.node.op_type in LINEAR]


def balanced(chosen: list[Stream], rounds: int) -> list[np.ndarray]:
    """The factors s[channels] of every stream that make its two ranges equal, all at once."""
    ports = [p for s in chosen for p in (*layers(s.writers), *layers(s.readers))]
    weights: Weights = {(id(p.node), p.input): np.abs(numbers(p)) for p in ports}
    factors = [np.ones(stream.channels) for stream in chosen]
    for _ in range(rounds):
        farthest = 0.0
        for stream, total in zip(chosen, factors, strict=True):
            s = step(ranges(stream, stream.writers, weights),
                     ranges(stream, stream.readers, weights))  # fmt: skip
            scale(stream.writers, 1 / s, weights)
            scale(stream.readers, s, weights)
            total *= s
            farthest = max(farthest, float(np.abs(s - 1).max(initial=0)))
        if farthest < ENOUGH:
            break
    return factors


def step(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """s = sqrt(before / after): ranges of one channel in the weights that write and that read it;
    1 where either is zero."""
    used = (before > 0) & (after > 0)
    return np.sqrt(np.divide(before, after, out=np.ones_like(before), where=used))


def ranges(stream: Stream, ports: Iterable[Port], weights: Weights) -> np.ndarray:
    """Largest magnitude of every channel over the layers' weights among the ports."""
    found = np.zeros(stream.channels)
    for port in layers(ports):
        rows = port.rows(weights[id(port.node), port.input])
        tops = rows.reshape(len(rows), -1).max(axis=1, initial=0)
        index = np.arange(len(tops)) if port.index is None else port.index
        np.maximum.at(found, index[index >= 0], tops[index >= 0])
    return found


def scale(ports: Iterable[Port], s: np.ndarray, weights: Weights) -> None:
    for port in layers(ports):
        key = id(port.node), port.input
        rows = port.rows(weights[key])
        weights[key] = port.unrows(rows * spread(s, port, rows.shape, 1.0), weights[key].shape)
