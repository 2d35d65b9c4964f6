"""Turn a scale and a zero point per channel of a norm's output into one of each for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.analysis.masks import masked_values
from ir.analysis.streams import Stream, streams
from ir.edit import Edit
from ir.fold import fold_scale, fold_shift, scale_refusal, shift_refusal
from ir.graph import Graph, Node, Value, array, nodes, rank
from passes.core import Ctx, Effect, Pass, register
from passes.probe import first_samples

from .diagonal import observed

NORM = "LayerNormalization"
KEPT = (1.0, 0.99999, 0.9999, 0.999)
"""Quantiles that are compared as the ends of a channel's range."""
ROWS = 4096
"""So many rows of a norm's output choose its ranges."""
FLOOR = 1e-4
"""The smallest scale of a channel, as a share of the mean one: one that is constant has none."""


@dataclass(frozen=True)
class Codes:
    """A scale and an integer zero point for each of C channels, and one of each in their place.

    The codes round(x / scale) + zero are round(y / one_scale) + one_zero of y = (x - shift) /
    factor.
    """

    scale: np.ndarray
    zero: np.ndarray
    one_scale: float
    one_zero: float

    @property
    def factor(self) -> np.ndarray:
        return self.scale / self.one_scale

    @property
    def shift(self) -> np.ndarray:
        return -self.scale * (self.zero - self.one_zero)


@register
@dataclass(frozen=True)
class Reparam(Pass):
    """Fold the ranges of a LayerNormalization's channels into it and into the layers behind it.

    rewrite:  x = LayerNormalization(h, g, b);                    y = x @ w + d
              -->
              x = LayerNormalization(h, g / r, (b + s q) / r);    y = x @ (r * w) + (d - (s q) @ w)
              r = s / mean(s),  q = z - round(mean(z))
    shapes:   g, b, and scales s, integer zero points z of each channel's own codes, [C]; w [C, N],
              d [N], made where there is none
    options:  bits: of the codes; samples: of the calibration data, at least, that give the ranges
    error:    exact but for rounding; codes of x with one scale and zero point are those that it had
              with one a channel
    raises:   nothing; skips norms whose output something else than linear layers reads, or that no
              data reached, with the reason
    source:   RepQ-ViT, arXiv:2212.08254, section 3.3; the zero point is rounded, and the ends of a
              range are the quantiles of least squared error
    """

    name: ClassVar[str] = "reparam"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    bits: int = 8
    samples: int = 32

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError("bits must lie in [2, 16]")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        made = with_biases(graph, ctx.edit)
        chosen = _chosen(graph, ctx)
        probes = first_samples(ctx.data or (), self.samples)
        values = [stream.value for stream in chosen]
        seen = observed(graph, values, probes, ROWS) if values and probes else {}
        for stream in chosen:
            site = str(stream.value.name)
            if site not in seen:
                ctx.skip(stream.value, "no data reached it")
                continue
            codes = fitted(seen[site].rows, self.bits)
            fold_shift(stream, codes.shift, ctx.edit)
            fold_scale(stream, codes.factor, ctx.edit)
            ctx.did(f"%{site}")
        without(made, ctx.edit)


def fitted(rows: np.ndarray, bits: int) -> Codes:
    """The codes of the least squared error for each channel of rows [T, C]."""
    top = 2**bits - 1
    rows = rows.astype(np.float64)
    best = np.full(rows.shape[1], np.inf)
    low, high = rows.min(axis=0), rows.max(axis=0)
    for share in KEPT:
        ends = np.quantile(rows, [1 - share, share], axis=0)
        error = np.square(rounded(rows, ends[0], ends[1], top) - rows).sum(axis=0)
        better = error < best
        low, high = np.where(better, ends[0], low), np.where(better, ends[1], high)
        best = np.where(better, error, best)
    scale = (high - low) / top
    mean = scale.mean() or 1.0  # a norm without a gain puts out constants
    scale = np.maximum(scale, FLOOR * mean)
    zero = np.rint(-low / scale)
    return Codes(scale, zero, float(scale.mean()), float(np.clip(np.rint(zero.mean()), 0, top)))


def rounded(rows: np.ndarray, low: np.ndarray, high: np.ndarray, top: int) -> np.ndarray:
    """What `top` + 1 codes between low and high of each channel can say of the rows."""
    scale = np.maximum((high - low) / top, np.finfo(np.float64).tiny)
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(rows / scale) + zero, 0, top) - zero) * scale


def _chosen(graph: Graph, ctx: Ctx) -> list[Stream]:
    """The streams that norms write; every other norm is skipped with the reason."""
    masked, chosen = masked_values(graph), []
    met: set[int] = set()
    for stream in streams(graph):
        norms = written_by(stream)
        if not norms:
            continue
        met |= {id(norm) for norm in norms}
        reason = refusal(stream)
        if not reason and stream.value.name in masked:
            reason = "it holds a mask"
        if reason:
            ctx.skip(norms[0], reason)
        else:
            chosen.append(stream)
    for norm in _norms(graph):
        if id(norm) not in met:
            ctx.skip(norm, "no linear layer with a constant weight reads it")
    return chosen


def refusal(stream: Stream) -> str:
    """Why a scale and a zero point a channel cannot be folded, or ''."""
    if stream.blocked:
        return stream.blocked
    last = (rank(stream.value) or 0) - 1
    if stream.index is not None or stream.pair is not None or stream.axis != last:
        return "its channels are not those of its last axis, each its own"
    reason = shift_refusal(stream, np.zeros(stream.channels))
    return reason or scale_refusal(stream, np.ones(stream.channels))


def written_by(stream: Stream) -> list[Node]:
    """The norms that write a stream, or that its value comes from where it is blocked."""
    makers = [port.node for port in stream.writers]
    producer = stream.value.producer()
    if stream.blocked and producer is not None:
        makers.append(producer)
    return [n for n in {id(n): n for n in makers}.values() if n.op_type == NORM and not n.domain]


def with_biases(graph: Graph, edit: Edit) -> list[tuple[Node, Value]]:
    """Give every LayerNormalization with a constant gain a bias that a zero point can go into."""
    made = []
    for norm in _norms(graph):
        gain = array(norm.inputs[1])
        if gain is None or len(norm.inputs) > 2:
            continue
        bias = edit.constant(np.zeros_like(gain), f"{norm.outputs[0].name}.bias", at=norm)
        edit.add_input(norm)
        edit.set_input(norm, 2, bias)
        made.append((norm, bias))
    return made


def without(made: list[tuple[Node, Value]], edit: Edit) -> None:
    """Take the biases away that nothing went into."""
    for norm, bias in made:
        if norm.inputs[2] is bias:
            edit.keep_inputs(norm, 2)
            edit.drop_constant(bias)


def _norms(graph: Graph) -> list[Node]:
    return [node for node in nodes(graph) if node.op_type == NORM and not node.domain]
