"""Which range to keep of a histogram: pure functions Bins -> (low, high).

Every range holds 0, because every quantization grid does, and none exceeds minmax_range.
`levels` is the number of codes of the grid, 256 for 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from calib.stats.base import Range
from calib.stats.histogram import Bins, HistogramResult

_SHRINKS = 1.0 - np.arange(80) / 100.0  # of the range: 1.00, 0.99 ... 0.21
_SPAN = 2048  # bins a search looks at; finer ones are joined first
_EPSILON = 1e-9  # probability of a level that the clipped data does not use


def search(
    result: HistogramResult, rule: Callable[..., tuple[float, float]], *args: object
) -> Range:
    """Apply `rule(bins, *args)` per tensor or per channel; Range float64 [] or [channels]."""
    ranges = np.array([rule(bins, *args) for bins in result], np.float64).reshape(-1, 2)
    count = sum(int(bins.counts.sum()) for bins in result)
    low, high = ranges.T if result.per_channel else ranges[0]
    return Range(np.asarray(low), np.asarray(high), count)


def minmax_range(bins: Bins) -> tuple[float, float]:
    return min(bins.low, 0.0), max(bins.high, 0.0)


def percentile_range(bins: Bins, percent: float, symmetric: bool = False) -> tuple[float, float]:
    """Leave out (100 - percent)/2 percent of the elements on each side, or of |x| if symmetric."""
    low, high = minmax_range(bins)
    total = int(bins.counts.sum())
    outside = (1.0 - percent / 100.0) * total
    if symmetric:
        limit = float(min(_upper(bins.magnitudes(), 0.0, bins.width, outside), max(-low, high)))
        return -limit, limit
    upper = _upper(bins.counts, -bins.limit, bins.width, outside / 2)
    lower = -_upper(bins.counts[::-1], -bins.limit, bins.width, outside / 2)
    return float(min(max(lower, low), 0.0)), float(max(min(upper, high), 0.0))


def _upper(counts: np.ndarray, start: float, width: float, outside: float) -> float:
    """The point above which `outside` elements lie, spreading each bin's evenly."""
    above = np.cumsum(counts[::-1])[::-1]  # elements in this bin or higher
    bin_index = max(int(np.searchsorted(-above, -outside, side="left")) - 1, 0)
    inside = outside - (above[bin_index] - counts[bin_index])  # of this bin, left out
    share = inside / counts[bin_index] if counts[bin_index] else 0.0
    return start + width * (bin_index + 1 - share)


def entropy_range(bins: Bins, levels: int, symmetric: bool = False) -> tuple[float, float]:
    """Threshold t on |x| whose quantized distribution is nearest to the clipped one by KL.

    Exact zeros are left out (after a ReLU they would outweigh all else). |x| gets all levels when
    the data has one sign and the grid may be asymmetric, else half of them.
    Returns (-t, t), or that cut to the data's range when not symmetric.
    source: TensorRT, "8-bit inference with TensorRT", 2017
    """
    low, high = minmax_range(bins)
    absmax = max(-low, high)
    one_sided = not symmetric and (low == 0.0 or high == 0.0)
    counts = bins.magnitudes().astype(np.float64)
    counts[0] -= bins.zeros
    counts, width = _trim(counts, bins.width)
    limit = absmax
    side_levels = levels if one_sided else levels // 2
    if len(counts) > side_levels:
        limit = min((_entropy_bins(counts, side_levels) + 0.5) * width, absmax)
    return (-limit, limit) if symmetric else (max(low, -limit), min(high, limit))


def _trim(counts: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    """Without empty bins at the end, and joined in pairs until at most _SPAN are left."""
    used = np.flatnonzero(counts)
    counts = counts[: used[-1] + 1] if len(used) else counts[:0]
    while len(counts) > _SPAN:
        counts = np.append(counts, 0.0) if len(counts) % 2 else counts
        counts, width = counts.reshape(-1, 2).sum(axis=1), width * 2
    return counts, width


def _entropy_bins(counts: np.ndarray, levels: int) -> int:
    """The number of bins to keep: the best of every 16th, then the best around that."""
    stride = 16
    coarse = [*range(levels, len(counts), stride), len(counts)]
    best = min(coarse, key=lambda kept: kl_divergence(counts, kept, levels))
    fine = range(max(levels, best - stride + 1), min(len(counts), best + stride - 1) + 1)
    return min(fine, key=lambda kept: kl_divergence(counts, kept, levels))


def kl_divergence(counts: np.ndarray, kept: int, levels: int) -> float:
    """KL(P || Q): P the first `kept` bins with the rest's mass in the last one, Q those bins
    merged into `levels` whose mass is spread evenly over their non-empty bins."""
    inside = counts[:kept]
    reference = inside.copy()
    reference[-1] += counts[kept:].sum()
    starts = np.arange(levels) * kept // levels
    sizes = np.diff(np.append(starts, kept))
    mass = np.add.reduceat(inside, starts)
    used = np.add.reduceat((inside > 0).astype(np.float64), starts)
    even = np.repeat(mass / np.maximum(used, 1.0), sizes) * (inside > 0)
    p = reference / reference.sum()
    q = np.maximum(even / max(even.sum(), 1.0), _EPSILON)
    known = p > 0
    return float(np.sum(p[known] * np.log(p[known] / q[known])))


def mse_range(bins: Bins, levels: int, symmetric: bool = False) -> tuple[float, float]:
    """The range with the least squared rounding and clipping error over the histogram.

    Both ends shrink together in steps of 1 %; an asymmetric range then moves each end by itself.
    """
    low, high = minmax_range(bins)
    if low == high:
        return low, high
    values, counts = _used_bins(bins)
    if symmetric:
        limits = max(-low, high) * _SHRINKS
        best = limits[np.argmin(grid_errors(values, counts, -limits, limits, levels, True))]
        return -float(best), float(best)
    lows, highs = low * _SHRINKS, high * _SHRINKS
    best = int(np.argmin(grid_errors(values, counts, lows, highs, levels, False)))
    left, right = lows[best], highs[best]
    for _ in range(2):
        same = np.full_like(lows, left)
        right = highs[np.argmin(grid_errors(values, counts, same, highs, levels, False))]
        same = np.full_like(lows, right)
        left = lows[np.argmin(grid_errors(values, counts, lows, same, levels, False))]
    return float(left), float(right)


def range_sqnr(bins: Bins, low: float, high: float, levels: int) -> float:
    """SQNR in dB of the data when `levels` codes are spread over [low, high]; inf without error."""
    values, counts = _used_bins(bins)
    noise = float(grid_errors(values, counts, np.array([low]), np.array([high]), levels, False)[0])
    signal = float(np.square(values) @ counts)
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(signal / noise)) if signal else float("-inf")


def _used_bins(bins: Bins) -> tuple[np.ndarray, np.ndarray]:
    """(centres, counts) of the non-empty bins, joined in pairs until they span at most _SPAN."""
    counts, width = bins.counts, bins.width
    used = np.flatnonzero(counts)
    while used[-1] - used[0] >= _SPAN:
        counts, width = counts.reshape(-1, 2).sum(axis=1), width * 2
        used = np.flatnonzero(counts)
    centres = (used - len(counts) // 2 + 0.5) * width
    return np.clip(centres, bins.low, bins.high), counts[used].astype(np.float64)


def grid_errors(
    values: np.ndarray,
    counts: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
    levels: int,
    symmetric: bool,
) -> np.ndarray:
    """Sum of counts * (x - Q(x))^2 for each candidate range: values, counts [n] -> float64 [m].

    Symmetric grids use the codes -(levels/2 - 1) .. levels/2 - 1 with no zero point.
    """
    top = levels // 2 - 1
    scales = highs / top if symmetric else (highs - lows) / (levels - 1)
    scales = np.maximum(scales, np.finfo(np.float64).tiny)
    if symmetric:
        least, most = np.full(len(scales), -top), np.full(len(scales), top)
    else:
        least = -np.rint(-lows / scales)
        most = least + levels - 1
    found = np.empty(len(scales))
    error = np.empty(len(values))  # one row at a time stays in the cache
    for row, scale in enumerate(scales):
        np.divide(values, scale, out=error)
        np.rint(error, out=error)
        np.maximum(error, least[row], out=error)
        np.minimum(error, most[row], out=error)
        error *= scale
        error -= values
        error *= error
        found[row] = error @ counts
    return found
