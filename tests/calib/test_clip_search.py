"""Searches of a clip range against the data itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.stats import (
    Histogram,
    Percentile,
    entropy_range,
    minmax_range,
    mse_range,
    percentile_range,
    search,
)
from calib.stats.clip_search import kl_divergence


def bins_of(array, **options):
    stat = Histogram(**options)
    stat.add(np.asarray(array, np.float32))
    (bins,) = stat.result()
    return bins


def gaussian(count=40_000, seed=0):
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


RULES = [
    minmax_range,
    lambda b: percentile_range(b, 99.9),
    lambda b: percentile_range(b, 99.9, True),
    lambda b: entropy_range(b, 256),
    lambda b: entropy_range(b, 16, True),
    lambda b: mse_range(b, 256),
    lambda b: mse_range(b, 16, True),
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60))
def test_no_rule_exceeds_minmax_and_all_hold_zero(values):
    bins = bins_of(values)
    low, high = minmax_range(bins)
    assert (low, high) == (min(0, *values, 0), max(0, *values, 0))
    absmax = max(-low, high)
    for index, rule in enumerate(RULES):
        left, right = rule(bins)
        symmetric = index in (2, 4, 6)
        assert (-absmax if symmetric else low) <= left <= 0 <= right
        assert right <= (absmax if symmetric else high)
        if symmetric:
            assert left == -right


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0, 99.9])
def test_percentile_against_quantile(percent):
    data = gaussian()
    bins = bins_of(data)
    tail = (1 - percent / 100) * len(data)
    low, high = percentile_range(bins, percent)
    one_bin = bins.counts.max() + 1
    assert abs(np.sum(data > high) - tail / 2) <= one_bin
    assert abs(np.sum(data < low) - tail / 2) <= one_bin
    assert abs(np.sum(np.abs(data) > percentile_range(bins, percent, True)[1]) - tail) <= one_bin
    for cut, side in ((high, data), (-low, -data)):  # and to a bin, not only to a count
        nearest = np.sort(side)[[-1 - round(tail / 2), -round(tail / 2)]]
        assert nearest[0] - bins.width <= cut <= nearest[1] + bins.width


def test_percentile_100_is_minmax():
    data = gaussian() - 0.3
    stat = Percentile(percent=100.0)
    stat.add(data)
    result = stat.result()
    assert (result.low, result.high) == (data.min(), data.max())


def quantize_error(data, low, high, levels, symmetric):
    """Mean squared error on the elements themselves, with a grid written out as numbers."""
    if symmetric:
        top = levels // 2 - 1
        grid = np.arange(-top, top + 1) * (high / top)
    else:
        scale = (high - low) / (levels - 1)
        grid = (np.arange(levels) - round(-low / scale)) * scale
    nearest = np.abs(data[:, None] - grid[None]).min(axis=1)
    return np.mean(nearest**2)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mse_range_is_near_the_best_on_the_data(symmetric, shift):
    data = gaussian(4000) ** 3 * 0.2 + shift
    bins = bins_of(data)
    low, high = minmax_range(bins)
    if symmetric:
        high = max(-low, high)
        low = -high
    got = quantize_error(data, *mse_range(bins, 16, symmetric), 16, symmetric)
    tried = [
        quantize_error(data, low * p, high * (p if symmetric else q), 16, symmetric)
        for p in np.linspace(0.22, 1, 20)
        for q in ([1.0] if symmetric else np.linspace(0.22, 1, 20))
    ]
    assert got <= min(tried) * 1.03
    assert got < 0.8 * quantize_error(data, low, high, 16, symmetric)


def test_uniform_data_keep_their_range():
    data = np.random.default_rng(0).uniform(-1, 1, 40_000)
    for levels in (16, 256):
        low, high = mse_range(bins_of(data), levels)
        assert high > 0.93  # half a step of clipping at 16 levels costs nothing
        assert low < -0.93


def test_gaussian_at_four_bits_is_clipped():
    bins = bins_of(gaussian())
    for symmetric in (True, False):
        low, high = mse_range(bins, 16, symmetric)
        assert 2.0 < high < 0.85 * bins.high  # the best of a Gaussian at 16 levels: 2.5 to 2.6
        assert -2.0 > low > 0.85 * bins.low


def test_entropy_cuts_rare_outliers_and_ignores_zeros():
    data = gaussian()
    data[0] = 60.0
    low, high = entropy_range(bins_of(data), 256)
    assert 2.5 < high < 12.0
    assert -high <= low < -2.5
    relu = np.maximum(gaussian(), 0)
    with_zeros = np.concatenate([relu, np.zeros(400_000, np.float32)])
    assert entropy_range(bins_of(relu), 16) == entropy_range(bins_of(with_zeros), 16)
    assert entropy_range(bins_of(relu), 16)[0] == 0.0


def test_kl_divergence_written_out():
    counts = np.array([4.0, 0.0, 2.0, 2.0, 1.0])
    p = np.array([4, 0, 2, 3]) / 9
    q = np.array([4, 0, 2, 2]) / 8  # levels {4, 0} and {2, 2}, spread over non-empty bins
    expected = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a)
    assert kl_divergence(counts, 4, 2) == pytest.approx(expected)
    assert kl_divergence(np.array([3.0, 1.0]), 2, 2) == pytest.approx(0.0)


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-30])
def test_constant_data(value):
    bins = bins_of(np.full(10, value))
    for rule in RULES:
        left, right = rule(bins)
        assert max(-left, right) == pytest.approx(abs(np.float32(value)), rel=0.01)


def test_search_per_channel():
    stat = Histogram(axis=0)
    stat.add(np.stack([gaussian(), 10 * gaussian(seed=1)]))
    got = search(stat.result(), mse_range, 16)
    assert got.low.shape == got.high.shape == (2,)
    np.testing.assert_allclose(got.high[1] / got.high[0], 10, rtol=0.1)
    assert got.count == 80_000
