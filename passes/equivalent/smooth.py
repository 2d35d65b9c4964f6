"""Move outlying channels of activations into the weights that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph
from passes.core import Ctx, Effect, Pass, register

from .diagonal import Channels, Site, balanced, divide, measured

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""How much of a channel's range goes into the weights: the exponents that are compared."""


SPIKE = 16.0
"""A channel whose largest magnitude is this many times its root mean square is no outlying channel,
but one with rare spikes: its factor would make the weights coarse for all other data (Whisper's
fc2: 22.8 dB before, 5.4 dB after)."""


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
              x) rather than skip; alpha: s = max|x|^alpha / max|w|^(1 - alpha) everywhere, whatever
              is predicted, for a number in place of null; weights: false leaves out max|w|;
              octaves: s as powers of two, at most so many below the largest, for a number in place
              of null
    error:    exact but for rounding
    raises:   nothing; skips inputs that would win less, with the figure
    source:   SmoothQuant, arXiv:2211.10438, equation 4; without alpha the exponent is chosen per
              input by the noise that it leaves, after the bound for uniform rounding; without
              weights CrossQuant, arXiv:2410.07505, of exponent 1 - alpha with fixed columns; with
              octaves the pre-shift of LLM-FP4, arXiv:2310.16836, section 3.3
    """

    name: ClassVar[str] = "smooth"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    gain: float = 6.0
    samples: int = 16
    online: bool = True
    alpha: float | None = None
    weights: bool = True
    octaves: int | None = None

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for site, seen in measured(
            graph, ctx, "choosing factors", samples=self.samples, online=self.online
        ):
            s, reason = self._factors(site, seen)
            if reason:
                ctx.skip(site.x, reason)
            else:
                divide(site, s, ctx, online=self.online)

    def _factors(self, site: Site, seen: Channels) -> tuple[np.ndarray, str]:
        """The factors s[K], and why they do not pay."""
        weight = site.weight()
        top, widest = site.tied(seen.top), site.tied(np.abs(weight).max(axis=1))
        strengths = STRENGTHS if self.alpha is None else (self.alpha,)
        rules = [
            finished(balanced(top, widest if self.weights else None, a), self.octaves)
            for a in strengths
        ]
        if self.alpha is not None:
            return rules[0], ""
        if spiky(seen):
            return rules[0], "its largest channel is large in rare places only"
        s, gain = best_factors(seen, weight, rules)
        if gain < self.gain:
            return s, f"its noise would fall by {gain:.1f} dB, less than {self.gain:g}"
        return s, ""


def finished(s: np.ndarray, octaves: int | None) -> np.ndarray:
    """The factors as they are, or as powers of two at most so many octaves below the largest."""
    if octaves is None:
        return s
    powers = np.rint(np.log2(s))
    return np.exp2(np.maximum(powers, powers.max() - octaves))


def spiky(channels: Channels) -> bool:
    """Whether the largest value stands alone in its channel."""
    widest = int(np.argmax(channels.top))
    return bool(channels.top[widest] > SPIKE * np.sqrt(channels.power[widest]))


def best_factors(
    channels: Channels, weight: np.ndarray, rules: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Of factors [K] for `weight` [K, N], or 1, those of the least noise, and by how many dB it
    falls."""
    best = np.ones(len(weight))
    plain = least = noise(channels, weight, best)
    for factors in rules:
        found = noise(channels, weight, factors)
        if found < least:
            best, least = factors, found
    fall = 10 * np.log10(plain / least) if least > 0 else 0.0
    return best, float(fall)


def noise(channels: Channels, weight: np.ndarray, factors: np.ndarray) -> float:
    """Mean square error of one output vector when x / s is rounded with one step, and s * w with
    one step per output: steps of 1/255 of twice and 1/127 of once the largest magnitude."""
    step = 2 * (channels.top / factors).max() / 255
    scaled = weight * factors[:, None]
    steps = np.abs(scaled).max(axis=0) / 127
    of_values = step**2 * np.square(scaled).sum()
    of_weights = np.square(steps).sum() * (channels.power / factors**2).sum()
    return float(of_values + of_weights) / 12
