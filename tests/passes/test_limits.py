"""Codes that keep the `pairs` rule are exact under vpmaddubsw, and lose little for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.rounding import limits


def saturating_products(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x u8 [T, K] times rows i8 [N, K] as x86 without VNNI computes it: pairs saturate to 16
    bits."""
    out = np.zeros((len(x), len(rows)), np.int64)
    for k in range(0, x.shape[1], 2):
        pair = x[:, k, None].astype(np.int64) * rows[:, k]
        if k + 1 < x.shape[1]:
            pair = pair + x[:, k + 1, None].astype(np.int64) * rows[:, k + 1]
        out += np.clip(pair, -32768, 32767)
    return out


def exact_products(x, rows):
    return x.astype(np.int64) @ rows.T.astype(np.int64)


@pytest.mark.parametrize("inputs", [7, 8, 33])
def test_full_codes_saturate_and_held_codes_do_not(inputs):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(16, inputs)) * 60
    x = np.vstack([np.full((1, inputs), 255), rng.integers(0, 256, (20, inputs))]).astype(np.uint8)
    free = np.clip(np.rint(steps), -127, 127).astype(np.int16)
    assert (saturating_products(x, free) != exact_products(x, free)).any()
    held = limits.hold_pairs(steps)
    np.testing.assert_array_equal(saturating_products(x, held), exact_products(x, held))


@given(st.lists(st.floats(-300, 300), min_size=2, max_size=9))
def test_every_pair_keeps_the_rule(values):
    held = limits.hold_pairs(np.array([values]))
    assert not limits.breaks_pairs(held).any()
    assert np.abs(held).max() <= 127


@given(st.floats(-200, 200), st.floats(-200, 200))
def test_a_pair_is_projected_as_well_as_brute_force_can(first, second):
    held = limits.hold_pairs(np.array([[first, second]]))[0]
    grid = np.arange(-127, 128)
    a, b = np.meshgrid(grid, grid, indexing="ij")
    fits = (a * b <= 0) | (np.abs(a + b) <= limits.REACH)
    error = np.where(fits, (a - first) ** 2 + (b - second) ** 2, np.inf)
    ours = (held[0] - first) ** 2 + (held[1] - second) ** 2
    assert ours <= error.min() + 1.0 + 1e-9 * error.min()


def test_scales_grow_only_where_that_pays():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(64, 256)).astype(np.float32)
    scale = (np.abs(rows).max(1, keepdims=True) / 127).astype(np.float32)
    codes, wider = limits.fit_pairs(rows, scale)
    assert not limits.breaks_pairs(codes).any()
    ours = np.square(codes * wider - rows).sum()
    full = np.square(np.rint(rows / scale) * scale - rows).sum()
    seven = np.square(np.rint(rows / (2 * scale)) * 2 * scale - rows).sum()
    assert full < ours < 0.6 * seven
    rows = rng.normal(size=(64, 2 * limits.SHORT)).astype(np.float32)
    scale = (np.abs(rows).max(1, keepdims=True) / 127).astype(np.float32)
    calm = rows * np.where(np.arange(rows.shape[1]) == 0, 1.0, 0.1).astype(np.float32)
    np.testing.assert_array_equal(
        limits.fit_pairs(calm, scale)[1][~limits.breaks_pairs(np.rint(calm / scale)).any(1)],
        scale[~limits.breaks_pairs(np.rint(calm / scale)).any(1)],
    )


@pytest.mark.parametrize(
    ("shape", "inputs", "output"),
    [((6, 4), (0,), 1), ((4, 6), (1,), 0), ((5, 4, 3, 2), (1, 2, 3), 0), ((2, 6, 4), (1,), 2)],
)
def test_kernel_order_and_back(shape, inputs, output):
    weight = np.arange(np.prod(shape)).reshape(shape)
    rows = limits.kernel_rows(weight, inputs, output)
    np.testing.assert_array_equal(limits.from_kernel_rows(rows, shape, inputs, output), weight)
    if len(inputs) == 3:
        assert rows[0, 1] == weight[0, 1, 0, 0]
        assert rows[0, 4] == weight[0, 0, 0, 1]


@pytest.mark.parametrize("columns", [7, 300])
def test_slabs_and_layout_in_memory_change_no_code(monkeypatch, columns):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, columns)).astype(np.float32)
    scale = (np.abs(rows).max(1, keepdims=True) / 127).astype(np.float32)
    codes, wider = limits.fit_pairs(rows, scale)
    for chunk, order in ((columns, "C"), (3 * columns, "F"), (1, "F")):
        monkeypatch.setattr(limits, "_CHUNK", chunk)
        again, scales = limits.fit_pairs(np.array(rows, order=order), scale)
        np.testing.assert_array_equal(again, codes)
        np.testing.assert_array_equal(scales, wider)
        assert again.flags.f_contiguous == (order == "F")
