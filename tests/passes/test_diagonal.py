"""Factors of channels: what each paper's rule promises, and that whoever searches never loses."""

import numpy as np
import pytest

import ir
import passes
from ir.qtype import QType
from passes.equivalent import scale_salient, suppress
from passes.equivalent.diagonal import Channels, balanced, merged, rounded, sites
from passes.equivalent.shift import centre, narrowing
from passes.equivalent.smooth import finished
from tests.helpers import TINY, tiny_graph

GROUPS, ROW = QType.parse("u4@16x1*f32+u4"), QType.parse("i8@0x1*f32")
VALUES = QType.parse("u8@0*f32+u8")
BLOCK = """graph g(%x: f32[n,64]) -> %y {
  %g : f32[64] = const seed:1
  %b : f32[64] = const seed:2
  %h : f32[n,64] = LayerNormalization(%x, %g, %b) {axis=-1, epsilon=1e-05}
  %w : f32[64,32] = const seed:3
  %y : f32[n,32] = MatMul(%h, %w)
}
"""
GROUPED = """graph g(%x: f32[n,4,8]) -> %y {
  %w : f32[8,2] = const seed:1
  %v : f32[n,4,2] = MatMul(%x, %w)
  %s : i64[4] = const [0, 4, 1, 2]
  %h : f32[n,4,1,2] = Reshape(%v, %s)
  %r : i64[4] = const [1, 1, 3, 1]
  %t : f32[n,4,3,2] = Tile(%h, %r)
  %m : i64[3] = const [0, 4, 6]
  %c : f32[n,4,6] = Reshape(%t, %m)
  %o : f32[6,5] = const seed:2
  %y : f32[n,4,5] = MatMul(%c, %o)
}
"""


def data(seed=0, spread=40.0, channels=3):
    """Rows [512, 64] with some channels `spread` times wider, and a weight [64, 32]."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(512, 64)).astype(np.float32)
    x[:, :channels] *= spread
    return x, rng.normal(size=(64, 32)).astype(np.float32) / 8


def batches(factor=1.0):
    rng = np.random.default_rng(5)
    return [{"x": (rng.normal(size=(64, 64)) * factor).astype(np.float32)} for _ in range(4)]


def test_the_ends_and_the_middle_of_the_exponent():
    top, widest = np.array([8.0, 2, 0.5]), np.array([0.5, 4, 1])
    weights = balanced(top, widest, 0.0) * widest
    np.testing.assert_allclose(weights, weights[0])
    values = top / balanced(top, widest, 1.0)
    np.testing.assert_allclose(values, values[0])
    s = balanced(top, widest, 0.5)
    ratio = (top / s) / (widest * s)
    np.testing.assert_allclose(ratio, ratio[0])
    np.testing.assert_allclose(np.prod(s), 1)


def test_channels_without_a_range_keep_their_scale():
    s = balanced(np.array([4.0, 0, 9]), np.array([1.0, 1, 0]), 0.5)
    assert s[1] == s[2] == 1
    assert (balanced(np.zeros(3), None, 0.7) == 1).all()


def test_columns_fold_at_least_as_finely_as_crossquant():
    """|x| / c^(1-a) never exceeds t^a, so a row's step is no larger than CrossQuant's."""
    x, _ = data()
    x = np.abs(x)
    s = x.max(axis=0) ** 0.85
    assert ((x / s).max(axis=1) <= x.max(axis=1) ** 0.15 * (1 + 1e-6)).all()
    step = (x / s).max(axis=1, keepdims=True) / 127
    plain = x.max(axis=1, keepdims=True) / 127
    assert ((x / s) < step / 2).mean() < 0.5 * (x < plain / 2).mean()


def test_octaves_are_powers_of_two_near_the_largest():
    s = finished(np.array([1.0, 0.8, 0.3, 1e-4]), 3)
    np.testing.assert_array_equal(s, [1, 1, 0.25, 0.125])
    np.testing.assert_array_equal(finished(np.array([0.3, 2.0]), None), [0.3, 2.0])


def test_statistics_merge_as_if_all_rows_came_at_once():
    x, _ = data()
    whole = Channels.of(x, 0)
    parts = merged([(len(p), Channels.of(p, 0)) for p in (x[:100], x[100:])])
    for name in ("low", "high", "mean", "power", "top"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-6)
    np.testing.assert_allclose(whole.mean, np.mean(np.abs(x), axis=0), rtol=1e-5)
    assert len(Channels.of(x, 100).rows) <= 100


def test_ratio_zero_is_plain_rounding_and_the_best_is_never_worse():
    x, w = data()
    mean = np.abs(x).mean(axis=0)
    plain = np.square(x @ (rounded(w, GROUPS) - w)).mean()
    np.testing.assert_allclose(
        scale_salient.loss(scale_salient.factors(mean, 0.0), x, w, GROUPS), plain, rtol=1e-4
    )
    s, ratio = scale_salient.best_ratio(mean, x, w, GROUPS)
    assert 0 < ratio < 1
    assert scale_salient.loss(s, x, w, GROUPS) < 0.6 * plain
    flat = np.ones_like(mean)
    assert scale_salient.best_ratio(flat, x, w, GROUPS)[1] == 0


def test_factors_of_awq_do_not_depend_on_the_unit():
    mean = np.array([0.5, 2.0, 7.0])
    np.testing.assert_allclose(
        scale_salient.factors(mean, 0.6), scale_salient.factors(mean * 10, 0.6)
    )


def test_the_shift_makes_every_channel_symmetric():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (400, 6)) + np.array([40, -30, 0, 0, 1, 0])
    channels = Channels.of(x)
    moved = x - centre(channels)
    np.testing.assert_allclose(moved.max(axis=0) + moved.min(axis=0), 0, atol=1e-12)
    assert narrowing(channels) > 20 * np.log10(70 / 2.1)
    assert narrowing(Channels.of(x - centre(channels))) == pytest.approx(0, abs=0.2)


def test_thresholds_begin_with_none_and_the_best_is_never_worse():
    x, w = data()
    seen = Channels.of(x)
    tries = suppress.thresholds(seen.top)
    assert np.maximum(1, seen.top / tries[0]).max() == pytest.approx(1)
    errors = [suppress.loss(np.maximum(1, seen.top / t), seen, w, ROW, VALUES) for t in tries]
    assert min(errors) < errors[0] / 10


def test_values_are_rounded_over_all_or_row_by_row():
    x = np.array([[1.0, -1.0], [100.0, 50.0]], np.float32)
    low, high = x.min(axis=0), x.max(axis=0)
    whole = suppress.rounded_values(x, low, high, VALUES)
    rows = suppress.rounded_values(x, low, high, QType.parse("i8@1x0*f32"))
    assert np.abs(whole - x).max() > 0.1
    assert np.abs(rows - x)[0].max() < 0.01


def outliers(recipe, coded="collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn"):
    """SQNR of a norm and a layer whose outlying channels were put in, behind `recipe`."""
    steps = f"inject_outliers{{channels=3,factor=60}} | {recipe} | {coded}"
    step = passes.run(ir.parse(BLOCK), steps, data=batches()).report.steps[-1]
    return step.sqnr["y"]


def test_planted_outliers_order_the_methods():
    plain = outliers("drop_dead")
    assert outliers("smooth{alpha=0.5,online=false}") > plain + 8
    assert outliers("smooth") > plain + 8
    assert outliers("suppress") > plain + 8
    assert outliers("shift | suppress") > plain + 8


def test_planted_outliers_in_groups_of_four_bits():
    coded = "place{w=u4@16x1*f32+u4} | rtn"
    plain = outliers("drop_dead", coded)
    for recipe in ("scale_salient{w=u4@16x1*f32+u4}", "smooth_model{w=u4@16x1*f32+u4}"):
        assert outliers(recipe, coded) > plain + 1


def test_heads_that_share_values_share_factors():
    """One key-value head of two channels, read by three: six inputs have two factors."""
    site = sites(ir.parse(GROUPED))[-1]
    assert site.index is not None, site.refusal
    np.testing.assert_array_equal(site.index, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(site.tied(np.array([1.0, 5, 3, 2, 2, 9])), [3, 9] * 3)
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(2, 4, 8)).astype(np.float32) * [[1, 1, 1, 1, 1, 1, 1, 30]]}]
    feeds = [{"x": f["x"].astype(np.float32)} for f in feeds]
    step = passes.run(ir.parse(GROUPED), "smooth{alpha=0.5,online=false}", data=feeds).report.steps[
        0
    ]
    assert len(step.sites) == 1


STEPS = (
    "smooth{alpha=0.5,online=false}",
    "scale_salient{w=u4@16x1*f32+u4}",
    "smooth_model{w=u4@16x1*f32+u4}",
    "suppress",
)


@pytest.mark.parametrize("name", ["attention", "llama"])
@pytest.mark.parametrize("step", STEPS)
def test_tiny_models_stay_what_they_compute(name, step):
    """The manager runs both sides; outliers give every method something to do."""
    steps = f"clean | inject_outliers{{factor=60}} | {step}"
    found = passes.run(tiny_graph(name), steps, data=TINY[name].calibration(2))
    assert found.report.steps[-1].sites
