"""Put copies of a part each in the place of an outlying input channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ir.analysis.streams import Stream, streams
from ir.fold import fold_repeat, fold_scale, repeat_refusal, scale_refusal
from ir.fold.tensors import exchange
from ir.graph import Graph, array
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register

from .diagonal import ROWS, Channels, Site, measured, rounded
from .similar import apart, matched, scores
from .suppress import VALUES, WEIGHTS, rounded_values

SPLIT = "channels.split"
"""Metadata of a layer whose input was widened: the width before, and the places of the parts."""
STEPS = 100
"""Thresholds that are compared, at equal distances from the largest magnitude to the smallest."""


@register
@dataclass(frozen=True)
class SplitChannels(Pass):
    """Replace every input channel above a threshold by as many equal parts as bring it below.

    rewrite:  y = x @ w
              -->
              y = (Gather(x, c) * (1 / t[c])) @ w[c], c holds channel i as often as t[i] says,
              t = ceil(max|x| / threshold); with only ReLU or a product between two layers, the
              first one computes the parts instead
    shapes:   x [T, K], t [K], w [K, N] (Gemm with transB: [N, K]); c [K'], K' = sum of t
    options:  w, a: the types that weights (as for a K x N matrix) and values will be rounded to;
              ratio: K' / K - 1 at most; gain: least fall in dB of the rounded layers' error that
              pays; merged: count in that error what it costs to merge as many channels afterwards;
              samples: of the calibration data, at least, that are looked at; online: where the
              layer before cannot compute the parts, make them in the graph
    error:    exact but for rounding
    raises:   nothing; skips inputs that would win less, with the figure
    source:   QLLM, arXiv:2310.08041, section 4.1 (channel disassembly); the error is that of all
              layers that read x, on rows of the data
    """

    name: ClassVar[str] = "split_channels"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    w: QType = WEIGHTS
    a: QType = VALUES
    ratio: float = 0.1
    gain: float = 1.0
    merged: bool = False
    samples: int = 16
    online: bool = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        orders = {id(stream.value): stream for stream in streams(graph, "permute")}
        for site, seen in measured(
            graph, ctx, "searching thresholds", samples=self.samples, rows=ROWS
        ):
            parts, fall = self._best(site, seen)
            if (parts == 1).all() or fall < self.gain:
                reason = f"its layers' error would fall by {fall:.1f} dB, less than {self.gain:g}"
                ctx.skip(site.x, reason)
                continue
            self._split(site, parts, orders.get(id(site.x)), ctx)

    def _best(self, site: Site, seen: Channels) -> tuple[np.ndarray, float]:
        """The parts t with the least error of the layers' outputs, and its fall in dB."""
        weight = site.weight()
        coded = rounded(weight, self.w)
        tries = candidates(seen.top, self.ratio)
        errors = np.array([loss(parts, seen, weight, coded, self.a) for parts in tries])
        if self.merged:
            errors += cost_of_merging(tries, seen.rows, weight)
        best = int(np.argmin(errors))
        fall = 10 * np.log10(errors[0] / errors[best]) if errors[best] > 0 else 0.0
        return tries[best], float(fall)

    def _split(self, site: Site, parts: np.ndarray, stream: Stream | None, ctx: Ctx) -> None:
        order, name = order_of(parts, np.abs(site.weight()).max(axis=1)), site.x.name
        reason = folding_refusal(site, stream, parts, order)
        if reason and not self.online:
            ctx.skip(site.x, reason)
            return
        if reason:
            _gather(site, parts, order, ctx)
        elif site.stream is not None and stream is not None:
            fold_scale(site.stream, parts.astype(np.float64), ctx.edit)
            fold_repeat(stream, order, ctx.edit)
        split = " ".join(str(c) for c in (len(parts), *np.flatnonzero(parts[order] > 1)))
        for layer in site.layers:
            ctx.edit.note(layer.node, {SPLIT: split})
        ctx.did(f"%{name}")


def candidates(top: np.ndarray, ratio: float) -> list[np.ndarray]:
    """t i64[K] for falling thresholds, each with more parts than the one before; first all 1."""
    found = [np.ones(len(top), np.int64)]
    most, least = float(top.max()), float(top.min())
    for threshold in np.linspace(most, least, STEPS + 1)[1:]:
        if threshold <= 0:
            break
        parts = np.maximum(1, np.ceil(top / threshold)).astype(np.int64)
        if parts.sum() - len(top) > ratio * len(top):
            break
        if parts.sum() > found[-1].sum():
            found.append(parts)
    return found


def order_of(parts: np.ndarray, widest: np.ndarray) -> np.ndarray:
    """The channel at each place, parts of a channel apart; widest [K]: see `apart`."""
    each = np.repeat(np.arange(len(parts)), parts)
    return each[apart(parts[each] > 1, widest[each])]


def loss(
    parts: np.ndarray, seen: Channels, weight: np.ndarray, coded: np.ndarray, a: QType
) -> float:
    """Mean square of Q(x') @ Q(w') - x @ w on the rows that were kept.

    The parts of a channel are rounded alike, and so are the rows of w that they meet: t times the
    rounded part meets the rounded row.
    """
    t = parts.astype(np.float32)
    values = rounded_values(seen.rows / t, seen.low / t, seen.high / t, a) * t
    return float(np.square(values @ coded - seen.rows @ weight, dtype=np.float64).mean())


def cost_of_merging(tries: list[np.ndarray], rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mean square of what an output loses when, for each t, as many channels are merged as parts
    are added: the cheapest pairs of those that no t splits, their losses taken as independent."""
    rows = rows.astype(np.float64)
    costs = scores(rows.T @ rows / len(rows), weight) / weight.shape[1]
    most = int(tries[-1].sum()) - len(weight)
    pairs = matched(costs, most, tries[-1] > 1)
    total = np.concatenate([[0.0], np.cumsum(costs[pairs[:, 0], pairs[:, 1]])])
    added = np.array([int(parts.sum()) - len(weight) for parts in tries])
    return np.where(added < len(total), total[np.minimum(added, len(total) - 1)], np.inf)


def folding_refusal(site: Site, stream: Stream | None, parts: np.ndarray, order: np.ndarray) -> str:
    """Why the layer before cannot compute the parts, or ''."""
    if site.stream is None:
        return site.refusal
    if site.index is not None:
        return "heads have these channels in common"
    reason = scale_refusal(site.stream, parts.astype(np.float64))
    if reason or stream is None:
        return reason or "others read its channels, too"
    layers = {id(layer.node) for layer in site.layers}
    if {id(port.node) for port in stream.readers} != layers:
        return "others read its channels, too"
    return repeat_refusal(stream, order)


def _gather(site: Site, parts: np.ndarray, order: np.ndarray, ctx: Ctx) -> None:
    """The parts, made in the graph for the site's layers alone."""
    x, edit = site.x, ctx.edit
    kind = np.float32 if x.dtype is None else x.dtype.numpy()
    places = edit.constant(order, f"{x.name}.places")
    shares = edit.constant((1 / parts[order]).astype(kind), f"{x.name}.shares")
    taken = edit.node("Gather", [x, places], like=f"{x.name}.taken", axis=-1, behind=x)
    made = edit.node("Mul", [taken.outputs[0], shares], like=f"{x.name}.split", after=taken)
    for node in (taken, made):
        node.outputs[0].type = x.type
        node.outputs[0].shape = widened(x, len(order))
    for layer in site.layers:
        old = layer.node.inputs[1]
        numbers = array(old)
        assert old is not None
        assert numbers is not None
        repeated = np.take(numbers, order, axis=layer.inputs[0])
        edit.set_input(layer.node, 0, made.outputs[0])
        exchange(layer.node, 1, repeated, f"{old.name}.split", edit)


def widened(x: onnx_ir.Value, width: int) -> onnx_ir.Shape | None:
    """The shape of a value with another last axis."""
    return None if x.shape is None else onnx_ir.Shape([*list(x.shape)[:-1], width])
