"""Move what a ReLU always lets pass into the biases behind it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.analysis.idioms.base import is_op
from ir.analysis.streams import Port, Stream, streams
from ir.analysis.streams.limits import limit, limit_reader
from ir.analysis.streams.ports import LINEAR, first_biases
from ir.fold import fold_shift, shift_refusal
from ir.graph import Graph, Node, constant
from passes.core import Ctx, Effect, Pass, Stat, register

LAYOUT = ("Identity", "Dropout", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


@register
@dataclass(frozen=True)
class AbsorbBias(Pass):
    """Subtract from every channel before a ReLU what it exceeds anyway, and add it behind.

    rewrite:  y = Relu(x @ w + b) @ v + d
              -->
              y = Relu(x @ w + b - c) @ v + (d + c @ v),  c = max(0, mean - sigmas * deviation)
    shapes:   b, c [C], one per channel of the ReLU; v [C, N] (or a Conv's), d [N]
    options:  sigmas: how many standard deviations below its mean a channel is taken to reach
    error:    none where the channel stays above c, which 99.87 % of a normal one's values do at 3;
              below, y takes c for x: at most c |v| each
    raises:   nothing; skips streams without a ReLU on the way, with a sum, a product, an average or
              a padded layer on it, without a bias, or whose mean was not collected, with the reason
    source:   DFQ, arXiv:1906.04721, section 4.1.3; mean and deviation are those of the ReLU's
              output on data, which for channels that count are those of its input
    """

    name: ClassVar[str] = "absorb_bias"
    effect: ClassVar[Effect] = Effect.LOSSY
    needs: ClassVar[frozenset[Stat]] = frozenset({Stat.MOMENTS})
    spoils: ClassVar[frozenset[Stat]] = frozenset(Stat)
    optional: ClassVar[bool] = True

    sigmas: float = 3.0

    def run(self, graph: Graph, ctx: Ctx) -> None:
        means = ctx.stats.get(Stat.MOMENTS, {})
        for stream in streams(graph):
            reason = refusal(stream)
            seen = means.get(str(stream.value.name))
            if reason or seen is None:
                ctx.skip(stream.value, reason or "the mean of its channels was not collected")
                continue
            found = seen.result()
            c = absorbed(found.mean, found.variance, self.sigmas)
            movable = shiftable(stream)
            reason = shift_refusal(movable, c)
            if not reason and not c.any():
                reason = f"no channel stays {self.sigmas:g} deviations above 0"
            if reason:
                ctx.skip(stream.value, reason)
                continue
            ctx.note(f"%{stream.value.name}: {np.count_nonzero(c)} of {c.size} channels")
            fold_shift(movable, c, ctx.edit)
            ctx.did(stream.value)


def absorbed(mean: np.ndarray, variance: np.ndarray, sigmas: float) -> np.ndarray:
    """c = max(0, mean - sigmas * sqrt(variance)) of each channel, f64."""
    return np.maximum(0, mean.astype(np.float64) - sigmas * np.sqrt(variance))


def refusal(stream: Stream) -> str:
    """Why nothing can be moved through the stream, or ''."""
    if stream.blocked:
        return stream.blocked
    if stream.index is not None or stream.pair is not None:
        return "its channels are not those of one layer"
    makers = [n for v in stream.values if (n := v.producer()) is not None]
    if not any(is_relu(node) for node in makers):
        return "no ReLU lies on the way"
    for node in makers:
        if not passes_shift(node):
            return f"{node.op_type} '{node.name}' keeps what is subtracted from getting through"
    if not first_biases(stream.writers):
        return "a layer that writes it has no bias"
    return next((reason for port in stream.readers if (reason := padded(port))), "")


def is_relu(node: Node) -> bool:
    return is_op(node, "Relu") or (is_op(node, "Clip") and limit(node) is not None)


def passes_shift(node: Node) -> bool:
    """Whether x - c goes through as it is, for x above c, and means and deviations as well: those
    of an average say little of what was averaged."""
    if is_op(node, "Add"):
        return sum(constant(v) is not None for v in node.inputs) == 1
    return is_relu(node) or is_op(node, *LINEAR, *LAYOUT)


def padded(port: Port) -> str:
    if "shift" in limit_reader(port.node):
        return ""
    return f"{port.node.op_type} '{port.node.name}' pads with zeros, which nothing is taken from"


def shiftable(stream: Stream) -> Stream:
    """The stream as one that takes shifts, where `refusal` saw that only its ReLUs do not."""
    return dataclasses.replace(
        stream, maps=stream.maps | {"shift"}, biases=first_biases(stream.writers)
    )
