"""Statistics against slow twins: one pass, splits, orders, dtypes, masks, bad numbers, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.stats import (
    BY_NAME,
    AbsMax,
    Gram,
    Histogram,
    MinMax,
    Moments,
    MovingAverage,
    Percentile,
    Sample,
    load,
    save,
)
from calib.stats.histogram import double_range
from ir.errors import DataError, OutputError

NUMBERS = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-25)
ALL = [AbsMax, MinMax, MovingAverage, Percentile, Histogram, Moments, Gram]


def draw(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def batches(count: int = 5) -> list[np.ndarray]:
    """Of growing scale and different sizes, so that ranges grow and the last batch is smaller."""
    return [draw(k, 6 - k, 4, 3, scale=1.0 + 3 * k) for k in range(count)]


def filled(kind, arrays, **options):
    stat = kind(**options)
    for array in arrays:
        stat.add(array)
    return stat


def assert_same(one, other, rtol=0.0):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=rtol, atol=1e-12 if rtol else 0)


def test_names():
    assert sorted(BY_NAME) == sorted(kind.name for kind in ALL)


@pytest.mark.parametrize("axis", [None, 1, -1])
@pytest.mark.parametrize("cut", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", ALL)
def test_merge_is_one_pass(kind, cut, axis):
    if kind is Gram and axis is None:
        axis = 0 if cut == 9 else 1
    data = batches()
    merged = filled(kind, data[:cut], axis=axis).merge(filled(kind, data[cut:], axis=axis))
    whole = filled(kind, data, axis=axis)
    for stat in (merged, whole):
        stat.result()  # joins what waits: how it was grouped is no part of the result
    exact = kind in (AbsMax, MinMax, Histogram, Percentile)
    assert_same(merged.state(), whole.state(), 0.0 if exact else 1e-5)


@pytest.mark.parametrize("kind", [AbsMax, MinMax, Histogram, Percentile])
def test_order_of_batches_changes_nothing(kind):
    assert_same(filled(kind, batches()).state(), filled(kind, batches()[::-1]).state())


@pytest.mark.parametrize("kind", [MinMax, AbsMax])
def test_ranges_per_axis(kind):
    data = batches()
    stacked = np.concatenate(data)
    got = filled(kind, data, axis=1).result()
    low, high = stacked.min(axis=(0, 2)), stacked.max(axis=(0, 2))
    if kind is AbsMax:
        high = np.maximum(-low, high)
        low = -high
    np.testing.assert_array_equal(got.low, low)
    np.testing.assert_array_equal(got.high, high)
    np.testing.assert_array_equal(got.absmax, np.abs(stacked).max(axis=(0, 2)))
    assert got.count == stacked.size


def test_moving_average_follows_its_formula():
    data = batches()
    low, high = data[0].min(), data[0].max()
    for batch in data[1:]:
        low += 0.1 * (batch.min() - low)
        high += 0.1 * (batch.max() - high)
    got = filled(MovingAverage, data, rate=0.1).result()
    np.testing.assert_allclose([got.low, got.high], [low, high], rtol=1e-6)


@pytest.mark.parametrize("axis", [None, 1])
def test_moments_keep_precision_far_from_zero(axis):
    data = [draw(k, 3, 4, 50) * 0.01 + np.float32(1000.0) for k in range(4)]
    wide = np.concatenate(data).astype(np.float64)
    over = None if axis is None else (0, 2)
    got = filled(Moments, data, axis=axis).result()
    np.testing.assert_allclose(got.mean, wide.mean(axis=over), rtol=1e-12)
    np.testing.assert_allclose(got.variance, wide.var(axis=over), rtol=1e-6)
    assert got.count.max() == wide.size / (1 if axis is None else 4)


@pytest.mark.parametrize(("axis", "chunk"), [(-1, 4096), (-1, 3), (1, 4096)])
def test_gram_is_the_sum_of_outer_products(axis, chunk):
    data = batches()
    rows = np.concatenate([np.moveaxis(b, axis, -1).reshape(-1, b.shape[axis]) for b in data])
    rows = rows.astype(np.float64)
    slow = sum(np.outer(row, row) for row in rows)
    got = filled(Gram, data, axis=axis, chunk=chunk).result()
    np.testing.assert_allclose(got.gram, slow, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(got.gram, got.gram.T)
    assert got.rows == len(rows)


def test_gram_over_several_panels():
    array = np.random.default_rng(0).integers(-4, 5, (40, 600)).astype(np.float32)
    np.testing.assert_array_equal(filled(Gram, [array]).result().gram, array.T @ array)


def slow_counts(arrays, half, exponent):
    counts = np.zeros(2 * half, np.int64)
    for value in np.concatenate([a.reshape(-1) for a in arrays]).astype(np.float64):
        counts[int(np.floor(value * half / 2.0**exponent)) + half] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=4))
def test_histogram_is_exact_however_the_range_grew(rows):
    data = [np.array(row, np.float32) for row in rows]
    stat = filled(Histogram, data, half=16)
    (bins,) = stat.result()
    flat = np.concatenate(data)
    np.testing.assert_array_equal(bins.counts, slow_counts(data, 16, int(stat.exponents[0])))
    assert (bins.low, bins.high) == (flat.min(), flat.max())
    assert bins.zeros == np.sum(flat == 0)
    assert np.abs(flat).max() < bins.limit
    assert bins.limit <= max(2 * np.abs(flat).max(), 2.0**-100)


def test_histogram_range_from_denormal_to_largest():
    data = [np.float32([1e-44, -1e-44]), np.float32([3e38, -1.0]), np.float32([-1e-44])]
    (bins,) = filled(Histogram, data).result()
    assert bins.counts.sum() == 5
    assert bins.limit == 2.0**128


def test_histogram_per_channel_equals_one_histogram_each():
    data = batches()
    for channel, bins in enumerate(filled(Histogram, data, axis=1, half=64).result()):
        (alone,) = filled(Histogram, [b[:, channel] for b in data], half=64).result()
        np.testing.assert_array_equal(bins.counts, alone.counts)
        assert (bins.limit, bins.low, bins.high) == (alone.limit, alone.low, alone.high)


def test_doubling_keeps_the_total():
    counts = np.arange(16)
    np.testing.assert_array_equal(double_range(counts, 1)[4:12], [1, 5, 9, 13, 17, 21, 25, 29])
    assert double_range(counts, 50)[7:9].tolist() == [28, 92]


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int64", "bool", "uint16"])
def test_dtypes(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    wide = array.astype(np.float64)
    for kind in ALL:
        axis = 1 if kind in (Gram, Moments) else None
        stat = filled(kind, [array], axis=axis)
        result = stat.result()
        if kind is MinMax:
            assert (result.low, result.high) == (wide.min(), wide.max())
        if kind is Gram:
            np.testing.assert_array_equal(result.gram, wide.T @ wide)


def test_torch_and_numpy_agree_and_views_work():
    array = draw(0, 6, 8)[::2, ::-1].T
    for kind in ALL:
        assert_same(
            filled(kind, [array]).state(), filled(kind, [torch.tensor(array.copy())]).state()
        )
    assert filled(MinMax, [torch.tensor(array.copy()).bfloat16()]).result().high > 0


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("constant", [-np.inf, float(np.finfo(np.float32).min), -1e9])
def test_masked_elements_do_not_count(constant, axis):
    array = draw(1, 4, 3, 5)
    masked = array.copy()
    masked[:2, :, 3:] = constant
    masked[:, 2] = constant
    keep = masked != np.float32(constant)
    for kind in ALL:
        stat = kind(axis=1 if kind is Gram else axis)
        stat.add(masked, ignore_below=-1e8)
        if kind is MinMax and axis is None:
            assert stat.result().low == array[keep].min()
        if kind is MinMax and axis == 1:
            slow = [array[:, c][keep[:, c]].min(initial=0) for c in range(3)]
            np.testing.assert_array_equal(stat.result().low, np.float32(slow))
        if kind is Moments:
            over = None if axis is None else (0, 2)
            assert stat.result().count.tolist() == keep.sum(axis=over).tolist()
            expected = (array * keep).sum(axis=over) / np.maximum(keep.sum(axis=over), 1)
            np.testing.assert_allclose(stat.result().mean, expected, rtol=1e-5)
        if kind is Histogram:
            assert sum(int(b.counts.sum()) for b in stat.result()) == keep.sum()


def test_gram_leaves_out_masked_rows():
    array = np.float32([[1, 2], [3, -1e9], [5, 6]])
    stat = Gram()
    stat.add(array, ignore_below=-1e8)
    assert stat.result().rows == 2
    np.testing.assert_array_equal(stat.result().gram, [[26, 32], [32, 40]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ALL)
def test_bad_numbers_are_named(kind, bad):
    array = draw(0, 4, 4)
    array[1, 2] = bad
    with pytest.raises(DataError, match=r"1 (NaN|\+Inf|-Inf) of 16 elements \(at %h\)"):
        kind().add(Sample(array, name="h"))


def test_nan_is_never_taken_for_a_mask():
    with pytest.raises(DataError, match="1 NaN"):
        MinMax().add(np.float32([np.nan, -np.inf, 1.0]), ignore_below=-1e9)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_seen(kind, tmp_path):
    stat = kind()
    stat.add(np.zeros((0, 3), np.float32))
    stat.add(np.full((2, 3), -np.inf, np.float32), ignore_below=-1e9)
    with pytest.raises(DataError, match="saw no values"):
        stat.result()
    save(tmp_path / "s.npz", {"h": [stat]})
    assert load(tmp_path / "s.npz")[0]["h"][0].batches == 0


def test_channels_must_stay():
    for kind in (MinMax, AbsMax, MovingAverage, Moments, Histogram, Gram):
        stat = kind(axis=1)
        stat.add(draw(0, 2, 3))
        with pytest.raises(DataError, match="3 channels before and 4 now"):
            stat.add(draw(0, 2, 4))
    with pytest.raises(DataError, match="axis 3 does not exist"):
        MinMax(axis=3).add(draw(0, 2))


def test_only_equal_kinds_merge():
    with pytest.raises(DataError, match="cannot be merged"):
        MinMax().merge(MinMax(axis=1))


@pytest.mark.parametrize("kind", ALL)
def test_file_round_trip_goes_on_where_it_was(kind, tmp_path):
    path = tmp_path / "stats.npz"
    data = batches()
    save(path, {"h": [filled(kind, data[:2], axis=1)], "é/1": []}, {"done": 2})
    stats, note = load(path)
    (stat,) = stats["h"]
    for batch in data[2:]:
        stat.add(batch)
    assert_same(stat.state(), filled(kind, data, axis=1).state(), 1e-6 if kind is Gram else 0.0)
    assert note == {"done": 2}
    assert list(stats) == ["h", "é/1"]
    assert [p.name for p in tmp_path.iterdir()] == ["stats.npz"]


def test_damaged_file_and_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "stats.npz"
    save(path, {"h": [filled(MinMax, batches())]})
    good = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space left"):
        save(path, {"h": [filled(MinMax, batches())]})
    assert path.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["stats.npz"]
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load(path)
