"""Elements that are tables: what every code stands for, and which code a number is nearest to.

Minifloats `eXmY` of 3 to 8 bits (a sign, X bits of exponent with bias 2^(X-1) - 1, Y of mantissa,
subnormals), all of whose codes are finite but for e4m3, whose S.1111.111 is NaN, and e5m2, whose
exponent 31 is infinity or NaN (OCP OFP8; OCP MX for e2m1, e2m3, e3m2). Logarithms `log2uN` and
`logsqrt2uN` of 2 to 6 bits: 2^-q and 2^(-q/2), the last code being zero (RepQ-ViT,
arXiv:2212.08254). `nf4`, the quantiles of a normal distribution (QLoRA, arXiv:2305.14314).

A tie goes to the even code. Logarithms round in the exponent. Zero is coded as +0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_FLOAT = re.compile(r"e([1-7])m([0-7])")
_LOG = re.compile(r"log(2|sqrt2)u([2-6])")
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Element:
    """A table of numbers. `thresholds[i]`: the largest float32 that is coded as `order[i]`."""

    name: str
    bits: int
    values: np.ndarray
    """f32[2^bits], by code; codes that encode never writes may be NaN or infinite."""
    order: np.ndarray
    """The finite codes by rising value, without that of -0."""
    thresholds: np.ndarray
    """f32, one fewer than `order`."""

    @property
    def levels(self) -> np.ndarray:
        """The numbers that can be written, rising."""
        return self.values[self.order]

    @property
    def top(self) -> float:
        """The largest magnitude."""
        return float(np.abs(self.levels).max())

    def nearest(self, x: np.ndarray) -> np.ndarray:
        """Codes (u8) of the levels nearest to x, saturating; NaN gives the lowest level."""
        place = np.searchsorted(self.thresholds, np.asarray(x, np.float32))
        place = np.where(np.isnan(x), 0, place)
        return self.order[place].astype(np.uint8)


@lru_cache(maxsize=256)
def element(name: str) -> Element | None:
    """The table element of this name; None when there is none."""
    if name == "nf4":
        return _table(name, np.array(_NF4))
    if (found := _LOG.fullmatch(name)) is not None:
        step = 1.0 if found[1] == "2" else 0.5
        values = 2.0 ** (-step * np.arange(1 << int(found[2])))
        middles = values * 2.0 ** (-step / 2)  # between a level and the next lower one
        values[-1] = 0.0
        return _table(name, values, middles[-2::-1])
    found = _FLOAT.fullmatch(name)
    if found is None or not 3 <= 1 + int(found[1]) + int(found[2]) <= 8:
        return None
    return _table(name, _minifloat(int(found[1]), int(found[2])))


def _minifloat(exponent: int, mantissa: int) -> np.ndarray:
    """Values of all codes: sign, exponent, mantissa from the highest bit down."""
    codes = np.arange(1 << (exponent + mantissa))
    power, rest = codes >> mantissa, codes & ((1 << mantissa) - 1)
    bias = (1 << (exponent - 1)) - 1
    fraction = rest / (1 << mantissa) + (power > 0)
    values = fraction * 2.0 ** (np.maximum(power, 1) - bias)
    if (exponent, mantissa) == (4, 3):
        values[-1] = np.nan
    if (exponent, mantissa) == (5, 2):
        values[power == 31] = [np.inf, np.nan, np.nan, np.nan]
    return np.concatenate([values, -values])


def _table(name: str, values: np.ndarray, middles: np.ndarray | None = None) -> Element:
    single = values.astype(np.float32)
    codes = [i for i in range(len(single)) if np.isfinite(single[i])]
    codes = [i for i in codes if single[i] != 0 or not np.signbit(single[i])]
    order = np.array(sorted(codes, key=lambda code: single[code]), np.int64)
    exact = values[order] if middles is not None else single[order].astype(np.float64)
    if middles is None:
        middles = (exact[1:] + exact[:-1]) / 2
    thresholds = middles.astype(np.float32)
    upper_even = order[1:] % 2 == 0
    above = (thresholds > middles) | ((thresholds == middles) & upper_even)
    lower = np.nextafter(thresholds, np.float32(-np.inf))
    thresholds = np.where(above, lower, thresholds).astype(np.float32)
    return Element(name, int(len(values) - 1).bit_length(), single, order, thresholds)
