"""Move outlying channels of activations into the weights that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from backends.torch import Executor
from ir.analysis.masks import masked_values
from ir.analysis.streams import Stream, streams
from ir.fold import fold_scale, scale_refusal
from ir.graph import Graph, Value, array, constant, rank
from passes.core import Ctx, Effect, Pass, register
from passes.padding import valid_rows, without_padding
from passes.probe import first_samples
from passes.sites import Linear, linears

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""How much of a channel's range goes into the weights: the exponents that are compared."""


SPIKE = 16.0
"""A channel whose largest magnitude is this many times its root mean square is no outlying channel,
but one with rare spikes: its factor would make the weights coarse for all other data (Whisper's
fc2: 22.8 dB before, 5.4 dB after)."""


@dataclass(frozen=True)
class Channels:
    """Largest magnitude and mean square of each of K channels over the data that was seen."""

    top: np.ndarray
    power: np.ndarray


@register
@dataclass(frozen=True)
class Smooth(Pass):
    """Divide the channels of a linear layer's input by factors, and multiply its weight by them.

    rewrite:  x = LayerNormalization(h, g, b);             y = x @ w
              -->
              x = LayerNormalization(h, g / s, b / s);     y = x @ (s * w)
    shapes:   s, g, b [K], of the K inputs of w [K, N] (Gemm with transB: [N, K])
    options:  gain: least fall in dB of the noise predicted for 8-bit codes of x and w that pays;
              samples: of the calibration data, at least, that give the ranges; online: where
              nothing that writes x takes 1/s, multiply by it (one product for all layers that read
              x) rather than skip
    error:    exact but for rounding
    raises:   nothing; skips inputs that would win less, with the figure
    source:   SmoothQuant, arXiv:2211.10438; the exponent is chosen per input by the noise that it
              leaves, after the bound for uniform rounding
    """

    name: ClassVar[str] = "smooth"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    gain: float = 6.0
    samples: int = 16
    online: bool = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        groups = _groups(graph)
        probes = first_samples(ctx.data or (), self.samples)
        if not groups or not probes:
            return
        seen = observed(graph, [sites[0].x for sites in groups], probes)
        found = {id(stream.value): stream for stream in streams(graph)}
        for sites in groups:
            x = sites[0].x
            factors, reason = self._factors(sites, seen)
            stream = found.get(id(x))
            if stream is not None and not reason and takes(stream, sites, factors):
                fold_scale(stream, factors, ctx.edit)
                ctx.did(x)
            elif reason or not self.online:
                ctx.skip(
                    x, reason or (stream and stream.blocked) or "what writes it takes no factor"
                )
            else:
                _apply(sites, factors, ctx)
                ctx.did(x)

    def _factors(self, sites: list[Linear], seen: Mapping[str, Channels]) -> tuple[np.ndarray, str]:
        """The factors s[K], or why there are none."""
        name = sites[0].x.name or ""
        weights = [_matrix(site) for site in sites]
        none = np.empty(0, np.float32)
        if name not in seen or not all(np.isfinite(w).all() for w in weights):
            return none, "no data reached it, or a weight that reads it is not finite"
        if spiky(seen[name]):
            return none, "its largest channel is large in rare places only"
        factors, gain = best_factors(seen[name], np.concatenate(weights, axis=1))
        if gain < self.gain:
            return none, f"its noise would fall by {gain:.1f} dB, less than {self.gain:g}"
        return factors, ""


def takes(stream: Stream, sites: list[Linear], factors: np.ndarray) -> bool:
    """Whether the writers of what the sites read take the factors, and nobody else reads it."""
    readers = {id(port.node) for port in stream.readers}
    alone = stream.index is None and stream.pair is None
    return alone and readers == {id(s.node) for s in sites} and not scale_refusal(stream, factors)


def observed(graph: Graph, values: list[Value], probes: Sequence[Mapping]) -> dict[str, Channels]:
    """Ranges of the last axis of values, over feeds, without rows of padding."""
    tops: dict[str, np.ndarray] = {}
    sums: dict[str, tuple[np.ndarray, int]] = {}
    executor = Executor(graph)
    for feeds in probes:
        rows = valid_rows(graph, feeds)

        def look(name: str, rows=rows):
            def see(tensor) -> None:
                data = tensor.detach().numpy()
                if rows is not None:
                    data = without_padding(data, rows)
                data = data.reshape(-1, data.shape[-1])
                if not data.size or not np.isfinite(data).all():
                    return
                top = np.abs(data).max(axis=0)
                tops[name] = np.maximum(tops.get(name, 0), top)
                total, count = sums.get(name, (0.0, 0))
                power = np.einsum("tk,tk->k", data, data, dtype=np.float64)
                sums[name] = (total + power, count + len(data))

            return see

        executor.run(feeds, watch={v.name or "": look(v.name or "") for v in values})
    return {name: Channels(top, sums[name][0] / sums[name][1]) for name, top in tops.items()}


def spiky(channels: Channels) -> bool:
    """Whether the largest value stands alone in its channel."""
    widest = int(np.argmax(channels.top))
    return bool(channels.top[widest] > SPIKE * np.sqrt(channels.power[widest]))


def best_factors(channels: Channels, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Factors f32[K] with the least noise over `STRENGTHS`, and by how many dB it falls.

    `weight` [K, N]. They are top^a / widest^(1 - a) of each channel, about 1 on average; channels
    that are always zero keep 1.
    """
    used = channels.top > 0
    widest = np.abs(weight).max(axis=1)
    used &= widest > 0
    plain = noise(channels, weight, np.ones_like(channels.top))
    best, least = np.ones_like(channels.top), plain
    for strength in STRENGTHS:
        factors = np.ones_like(channels.top, dtype=np.float64)
        factors[used] = channels.top[used] ** strength / widest[used] ** (1 - strength)
        if used.any():
            factors[used] /= np.exp(np.log(factors[used]).mean())
        found = noise(channels, weight, factors)
        if found < least:
            best, least = factors, found
    fall = 10 * np.log10(plain / least) if least > 0 else 0.0
    return best.astype(np.float32), float(fall)


def noise(channels: Channels, weight: np.ndarray, factors: np.ndarray) -> float:
    """Mean square error of one output vector when x / s is rounded with one step, and s * w with
    one step per output: steps of 1/255 of twice and 1/127 of once the largest magnitude."""
    step = 2 * (channels.top / factors).max() / 255
    scaled = weight * factors[:, None]
    steps = np.abs(scaled).max(axis=0) / 127
    of_values = step**2 * np.square(scaled).sum()
    of_weights = np.square(steps).sum() * (channels.power / factors**2).sum()
    return float(of_values + of_weights) / 12


def _groups(graph: Graph) -> list[list[Linear]]:
    """Layers with a matrix weight, those that read one value together, in order."""
    masked = masked_values(graph)
    found: dict[int, list[Linear]] = {}
    for site in linears(graph):
        fits = site.node.op_type in ("MatMul", "Gemm") and rank(site.weight) == 2
        plain = fits and site.node.graph is graph.graph and constant(site.weight) is not None
        if plain and site.x.name not in masked:
            found.setdefault(id(site.x), []).append(site)
    return list(found.values())


def _matrix(site: Linear) -> np.ndarray:
    """The weight as [K, N] in float32."""
    numbers = array(site.weight)
    assert numbers is not None
    return (numbers if site.inputs == (0,) else numbers.T).astype(np.float32, copy=False)


def _apply(sites: list[Linear], factors: np.ndarray, ctx: Ctx) -> None:
    x = sites[0].x
    kind = np.float32 if x.dtype is None else x.dtype.numpy()
    inverse = ctx.edit.constant((1 / factors).astype(kind), f"{x.name}.smoothing")
    producer = x.producer()
    where = {"after": producer} if producer is not None else {"before": sites[0].node.graph[0]}  # type: ignore[index]
    made = ctx.edit.node("Mul", [x, inverse], like=f"{x.name}.smooth", **where)  # type: ignore[arg-type]
    made.outputs[0].type, made.outputs[0].shape = x.type, x.shape
    for site in sites:
        numbers, old = array(site.weight), site.weight
        assert numbers is not None
        row = factors[:, None] if site.inputs == (0,) else factors[None, :]
        scaled = ctx.edit.constant((numbers * row).astype(numbers.dtype), f"{old.name}.smooth")
        ctx.edit.set_input(site.node, 0, made.outputs[0])
        ctx.edit.set_input(site.node, 1, scaled)
        ctx.edit.drop_constant(old)
