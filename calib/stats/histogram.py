"""Counts over equal bins whose range grows by doubling, so that no count is ever approximate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from calib.stats.base import Stat
from calib.stats.sample import Sample
from ir.errors import DataError

_CHUNK = 1 << 16  # elements per step: the temporaries stay in the cache
_FEW = 1 << 14  # elements: smaller tensors wait until so many are there
_LEAST = -100  # exponent of the smallest range; below it 2^12 / range leaves float32
_MOST = 1000  # exponent of the largest range: float64 data only


@dataclass(frozen=True, eq=False)
class Bins:
    """One histogram over [-limit, limit) with exact extremes.

    counts: int64 [2 * half]; limit: float, a power of two; low, high: the exact extremes;
    zeros: how many elements were exactly 0 (they are also in `counts`).
    """

    counts: np.ndarray
    limit: float
    low: float
    high: float
    zeros: int

    @property
    def width(self) -> float:
        return 2.0 * self.limit / len(self.counts)

    @property
    def edges(self) -> np.ndarray:
        """float64 [2 * half + 1]."""
        half = len(self.counts) // 2
        return np.arange(-half, half + 1) * self.width

    @property
    def centres(self) -> np.ndarray:
        """float64 [2 * half]."""
        return self.edges[:-1] + self.width / 2

    def magnitudes(self) -> np.ndarray:
        """Counts of |x| over [0, limit): int64 [half]."""
        half = len(self.counts) // 2
        return self.counts[half:] + self.counts[:half][::-1]


@dataclass(frozen=True, eq=False)
class HistogramResult:
    """bins: one Bins, or one per channel when the statistic has an axis."""

    bins: tuple[Bins, ...]
    per_channel: bool

    def __iter__(self) -> Iterator[Bins]:
        return iter(self.bins)


@dataclass(eq=False)
class Histogram(Stat):
    """Counts over 2 * half bins of [-2^e, 2^e); e grows when a batch asks for it.

    Limits are powers of two: when the range doubles, pairs of bins become one bin exactly, and
    histograms of different ranges always share edges. So neither the order of the batches nor a
    split over processes changes any count. Between half/2 and half bins cover |x|.
    result(): HistogramResult.
    """

    name: ClassVar[str] = "histogram"
    kept: ClassVar[tuple[str, ...]] = ("counts", "exponents", "lows", "highs", "zeros")

    half: int = 4096

    def __post_init__(self) -> None:
        if self.half < 2 or self.half & (self.half - 1):
            raise ValueError(f"half must be a power of two, at least 2, not {self.half}")
        self._start(0)

    def _start(self, channels: int) -> None:
        self.counts = np.zeros((channels, 2 * self.half), np.int64)
        self.exponents = np.full(channels, _LEAST, np.int64)
        self.lows = np.full(channels, np.inf)
        self.highs = np.full(channels, -np.inf)
        self.zeros = np.zeros(channels, np.int64)
        self._waiting: list[np.ndarray] = []  # small arrays, counted together
        self._waiting_size = 0

    def _add(self, sample: Sample) -> None:
        if self.axis is None:
            if not self.batches:
                self._start(1)
            self._add_whole(sample)
            return
        lows, highs = sample.extremes(self.axis)
        if not self.batches:
            self._start(len(lows))
        self._same_channels(self.lows, lows, sample)
        values, masked = sample.grouped(self.axis)
        for channel, (low, high) in enumerate(zip(lows, highs, strict=True)):
            if low <= high:
                column = values[:, channel]
                if masked is not None:
                    column = column[~masked[:, channel]]
                self._add_channel(channel, Sample(column).floats.numpy(), low, high)

    def _add_whole(self, sample: Sample) -> None:
        """Count a tensor now, or with others once they are worth the fixed cost of counting."""
        low, high = sample.range
        if sample.size > _FEW:
            self._add_channel(0, sample.floats.numpy(), low, high)
            return
        self.lows[0], self.highs[0] = min(self.lows[0], low), max(self.highs[0], high)
        self._waiting.append(sample.floats.numpy().copy())
        self._waiting_size += sample.size
        if self._waiting_size > _FEW:
            self._count_waiting()

    def _count_waiting(self) -> None:
        if self._waiting:
            values, self._waiting, self._waiting_size = np.concatenate(self._waiting), [], 0
            self._add_channel(0, values, float(values.min()), float(values.max()))

    def state(self) -> dict[str, np.ndarray]:
        self._count_waiting()
        return super().state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._waiting, self._waiting_size = [], 0
        super().restore(state)

    def _add_channel(self, channel: int, values: np.ndarray, low: float, high: float) -> None:
        absmax = max(-low, high)
        exponent = math.frexp(absmax)[1] if absmax else _LEAST
        if exponent > _MOST:
            raise DataError(
                f"histogram met {absmax:.3g}, beyond what it can count",
                hint="use minmax there, or correct the data",
            )
        self._grow(channel, max(_LEAST, exponent))
        exponent = int(self.exponents[channel])
        self.zeros[channel] += count_bins(values, exponent, low, high, self.counts[channel])
        self.lows[channel] = min(self.lows[channel], low)
        self.highs[channel] = max(self.highs[channel], high)

    def _grow(self, channel: int, exponent: int) -> None:
        doublings = exponent - int(self.exponents[channel])
        if doublings > 0:
            self.exponents[channel] = exponent
            if self.counts[channel].any():
                self.counts[channel] = double_range(self.counts[channel], doublings)

    def _merge(self, other: Any) -> None:
        self._count_waiting()
        other._count_waiting()
        for channel in range(len(self.counts)):
            self._grow(channel, int(other.exponents[channel]))
            doublings = int(self.exponents[channel] - other.exponents[channel])
            self.counts[channel] += double_range(other.counts[channel], doublings)
        self.lows = np.minimum(self.lows, other.lows)
        self.highs = np.maximum(self.highs, other.highs)
        self.zeros = self.zeros + other.zeros

    def result(self) -> HistogramResult:
        self._seen()
        self._count_waiting()
        bins = tuple(
            Bins(
                self.counts[channel].copy(),
                2.0 ** int(self.exponents[channel]),
                float(self.lows[channel]),
                float(self.highs[channel]),
                int(self.zeros[channel]),
            )
            if self.lows[channel] <= self.highs[channel]
            else Bins(self.counts[channel].copy(), 2.0**_LEAST, 0.0, 0.0, 0)
            for channel in range(len(self.counts))
        )
        return HistogramResult(bins, self.axis is not None)


def count_bins(
    values: np.ndarray, exponent: int, low: float, high: float, counts: np.ndarray
) -> int:
    """Add floats [n] in [low, high], inside (-2^exponent, 2^exponent), to counts int64 [2 * half].

    Returns the number of exact zeros. Scaling by a power of two is exact and floor() comes before
    any other addition, so an element's bin never depends on how the range came about. (Elements
    that this scaling underflows, 2^-126 and less of float32's range, count as +0.)
    """
    half = len(counts) // 2
    scale = values.dtype.type(2.0 ** (math.log2(half) - exponent))
    first = math.floor(low * float(scale))
    last = math.floor(high * float(scale))
    zeros = 0
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        place = part * scale
        np.floor(place, out=place)
        place -= first
        found = np.bincount(place.astype(np.int32), minlength=last - first + 1)
        if len(found) > last - first + 1:  # a product below float32's least number became 0
            found = np.append(found[: last - first], found[last - first :].sum())
        counts[half + first : half + last + 1] += found
        zeros += len(part) - int(np.count_nonzero(part)) if low <= 0.0 <= high else 0
    return zeros


def double_range(counts: np.ndarray, doublings: int) -> np.ndarray:
    """The same counts int64 [2 * half] over a range 2^doublings times as wide, exactly."""
    quarter = len(counts) // 4
    # after log2(half) doublings only the two central bins are used, and doubling keeps them
    for _ in range(min(doublings, len(counts).bit_length() - 1)):
        wide = np.zeros_like(counts)
        wide[quarter : 3 * quarter] = counts.reshape(-1, 2).sum(axis=1)
        counts = wide
    return counts
