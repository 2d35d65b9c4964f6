"""Learn one factor a channel from the error that rounding leaves in each block's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from calib.replay import Region
from ir.analysis.streams import Port, Stream, streams
from ir.fold import fold_scale, scale_refusal
from ir.fold.tensors import numbers, spread
from ir.graph import Graph, rank
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register

from .diagonal import Channels, balanced, observed
from .learned import (
    Formats,
    Key,
    Learning,
    Student,
    Tensors,
    feeds_of,
    learn,
    region_of,
    regions_with,
)

WEIGHTS = QType.parse("i4@0x1*f32")


@register
@dataclass(frozen=True)
class LearnScales(Pass):
    """Divide the channels of every stream inside a block by factors that its rounded output chose.

    rewrite:  x = LayerNormalization(h, g, b);             y = x @ w
              -->
              x = LayerNormalization(h, g / s, b / s);     y = x @ (s * w)
    shapes:   s, g, b [K], of the K inputs of w [K, N]; of queries and keys [K], q / s and k * s
    options:  w, a: the types that weights (as for a K x N matrix) and values are rounded to while
              learning, each null for float; epochs: walks over the samples; rate: Adam's step size
              of log s; samples: of the calibration data; batch: samples in a step; alpha: s begins
              as max|x|^alpha / max|w|^(1 - alpha), or as 1 where that errs less
    error:    exact but for rounding; rounded to w and a, the held-out error of a block's output is
              never above that without factors, nor is that of the model's outputs
    raises:   PassError naming the block when its loss is not finite; skips streams that take no
              factor, lie in no one block, or are in a block that learning does not help
    source:   OmniQuant (learnable equivalent transformation, without shifts), arXiv:2308.13137
    """

    name: ClassVar[str] = "learn_scales"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    w: QType | None = WEIGHTS
    a: QType | None = None
    epochs: int = 20
    rate: float = 0.005
    samples: int = 64
    batch: int = 4
    alpha: float = 0.5

    def run(self, graph: Graph, ctx: Ctx) -> None:
        learning = Learning(self.epochs, self.rate, self.samples, self.batch)
        feeds = feeds_of(graph, ctx, learning)
        parts, places = self._places(graph, ctx)
        if not places or not feeds:
            return
        student = Student.of(graph)
        found = [stream for mine in places.values() for stream in mine]
        student.hold(list(dict.fromkeys(key for s in found for key in keys_of(s))))
        student.code(Formats(self.w, self.a))
        last = [s.value for s in found if s.pair is None and _last(s)]
        seen = observed(graph, last, feeds)
        plans = {
            name: partial(Scales, mine, student, seen, self.alpha) for name, mine in places.items()
        }
        chosen: list[tuple[Stream, np.ndarray]] = []
        for name, parameters, reason in learn(
            student, graph, parts, plans, feeds, learning, str(self), "learning factors", ctx
        ):
            for number, stream in enumerate(places[name]):
                if parameters is None:
                    ctx.skip(stream.value, f"{name}: {reason}")
                else:
                    s = np.exp(parameters[f"scale/{number}"].numpy().astype(np.float64))
                    chosen.append((stream, s))
        for stream, s in chosen:
            site = f"%{stream.value.name}"
            fold_scale(stream, s, ctx.edit)
            ctx.did(site)

    def _places(self, graph: Graph, ctx: Ctx) -> tuple[list[Region], dict[str, list[Stream]]]:
        """The regions, and by their names the streams in them that take factors."""
        every = streams(graph)
        parts, found = regions_with(graph, every), {}
        for stream in every:
            ports = (*stream.writers, *stream.readers)
            reason = scale_refusal(stream, np.ones(stream.channels))
            region = region_of(parts, [str(p.node.outputs[0].name) for p in ports])
            if not reason and stream.pair is not None and self._free(stream):
                reason = "every output of its weights has a scale of its own: no code would change"
            if not reason and region is None:
                reason = "it lies in no one block"
            if reason or region is None:
                ctx.skip(stream.value, reason)
            else:
                found.setdefault(region.name, []).append(stream)
        return parts, found

    def _free(self, stream: Stream) -> bool:
        """Whether factors of the outputs of weights are taken up by the weights' own scales."""
        return self.w is None or (not self.w.per_tensor and self.w.block[-1] == 1)


def _last(stream: Stream) -> bool:
    return stream.axis == (rank(stream.value) or 0) - 1


def key_of(port: Port) -> Key:
    return port.node.name or "", port.input


def keys_of(stream: Stream) -> list[Key]:
    return [key_of(port) for port in (*stream.writers, *stream.readers)]


class Scales:
    """Factors of a region's streams: parameters `scale/<number>` are their logarithms [channels]
    in float32; what `fold_scale` does, with gradients."""

    def __init__(
        self, found: Sequence[Stream], student: Student, seen: dict[str, Channels], alpha: float
    ) -> None:
        self.found, self.seen, self.alpha = found, seen, alpha
        self.changes: dict[Key, list[tuple[str, torch.Tensor, int]]] = {}
        for number, stream in enumerate(found):
            for port in (*stream.writers, *stream.readers):
                sign = 1 if (port in stream.readers) != port.inverse else -1
                index = places_of(port, stream.channels)
                self.changes.setdefault(key_of(port), []).append((f"scale/{number}", index, sign))
        self.numbers = {key: student.numbers(key) for key in self.changes}

    def starts(self) -> list[Tensors]:
        """No factors, and SmoothQuant's."""
        names = [f"scale/{number}" for number in range(len(self.found))]
        ones = {n: torch.zeros(s.channels) for n, s in zip(names, self.found, strict=True)}
        logs = [np.log(self._balanced(stream)) for stream in self.found]
        smooth = {
            n: torch.from_numpy(a.astype(np.float32)) for n, a in zip(names, logs, strict=True)
        }
        return [ones, smooth]

    def constants(self, parameters: Tensors) -> dict[Key, torch.Tensor]:
        found = {}
        for key, changes in self.changes.items():
            total: torch.Tensor | float = 0.0
            for name, index, sign in changes:
                logs = torch.cat([parameters[name], parameters[name].new_zeros(1)])
                total = total + sign * logs[index]
            found[key] = self.numbers[key] * torch.exp(torch.as_tensor(total))
        return found

    def _balanced(self, stream: Stream) -> np.ndarray:
        seen = self.seen.get(stream.value.name or "")
        if seen is None or stream.pair is not None:
            return np.ones(stream.channels)
        index = np.arange(stream.channels) if stream.index is None else stream.index
        top, widest = np.zeros(stream.channels), np.zeros(stream.channels)
        np.maximum.at(top, index[index >= 0], seen.top[index >= 0])
        for port in stream.readers:
            rows = np.abs(port.rows(numbers(port)))
            most = rows.reshape(len(rows), -1).max(axis=1)
            own = np.arange(len(rows)) if port.index is None else port.index
            np.maximum.at(widest, own[own >= 0], most[own >= 0])
        return balanced(top, widest, self.alpha)


def places_of(port: Port, channels: int) -> torch.Tensor:
    """i64, of a shape that broadcasts to the port's tensor: the channel at each place, `channels`
    where there is none."""
    held = numbers(port)
    rows = port.rows(held)
    index = spread(np.arange(channels), port, rows.shape, channels)
    if port.groups > 1:
        index = np.broadcast_to(index, rows.shape)
    return torch.from_numpy(np.ascontiguousarray(port.unrows(index, held.shape)).astype(np.int64))
