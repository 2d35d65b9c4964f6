"""Give every norm a few outlier channels, and undo them in the layers that read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.analysis.streams import Stream, streams
from ir.fold import fold_scale, scale_refusal
from ir.graph import Graph, Node, constant, graphs
from passes.core import Ctx, Effect, Pass, register

NORMS = ("LayerNormalization", "RMSNormalization", "BatchNormalization")


@register
@dataclass(frozen=True)
class InjectOutliers(Pass):
    """Multiply some channels of every norm, and divide the weights that read them: a test's harm.

    rewrite:  h = LayerNormalization(x, gain, bias);         y = MatMul(h, W)
              -->
              h = LayerNormalization(x, f * gain, f * bias); y = MatMul(h, W / f)
    shapes:   gain, bias, f [C], one per channel; W [C, N], all readers of the stream alike
    options:  channels, how many of each stream; factor > 0, unitless, what f holds there (else 1)
    error:    exact but for rounding; computed in float64
    raises:   nothing; skips a norm whose stream is blocked, with the reason
    source:   the reverse of SmoothQuant, arXiv:2211.10438, equation 3
    """

    name = "inject_outliers"
    effect = Effect.EXACT
    sought = "norm that only linear layers with constant weights read"

    channels: int = 3
    factor: float = 40.0

    def run(self, graph: Graph, ctx: Ctx) -> None:
        found = [(norm, s) for s in streams(graph) for norm in _norms(s)]
        reached: set[int] = set()
        for norm, stream in found:
            if id(norm) in reached:
                continue
            reached |= {id(each) for each in _norms(stream)}
            if constant(norm.inputs[1]) is None:
                ctx.skip(norm, "its gain is computed, not constant")
                continue
            s = draw(stream.channels, self.channels, self.factor, ctx.rng)
            reason = scale_refusal(stream, s)
            if reason:
                ctx.skip(norm, reason)
                continue
            fold_scale(stream, s, ctx.edit)
            ctx.did(norm)
        for scope in graphs(graph):
            for node in scope:
                if node.op_type in NORMS and not node.domain and id(node) not in reached:
                    ctx.skip(node, "no linear layer with a constant weight reads it")


def draw(size: int, channels: int, factor: float, rng: np.random.Generator) -> np.ndarray:
    """s f64[size]: 1 / factor at `channels` places drawn without repetition, 1 elsewhere."""
    s = np.ones(size)
    s[rng.choice(size, min(channels, size), replace=False)] = 1 / factor
    return s


def _norms(stream: Stream) -> list[Node]:
    nodes = [port.node for port in stream.writers]
    producer = stream.value.producer()
    if producer is not None:
        nodes.append(producer)
    norms = {id(n): n for n in nodes if n.op_type in NORMS and not n.domain}
    return list(norms.values())
