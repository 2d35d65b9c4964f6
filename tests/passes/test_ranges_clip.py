"""Ranges come from what was collected; clipping chooses better ones."""

import numpy as np
import pytest

import ir
from calib.stats import BY_NAME
from ir import ops
from ir.edit import Edit
from ir.errors import PassError
from ir.formats import integer
from ir.qtype import QType
from passes import Check
from passes.core import Ctx, Stat
from passes.ranges import Method, coded_range, collected_range, searched_range
from passes.rounding.clip_weights import best_range, group_extremes, group_sum
from tests.helpers import MLP, SMALL, apply

U8, U4 = QType.parse("u8@0*f32+u8"), QType.parse("u4@0*f32+u4")
PLACE = "collect{histogram} | place{w=i8@0x1*f32,a=%s}"


def context(**stats):
    """A Ctx whose statistics of %x saw the given arrays."""
    found = {}
    for name, array in stats.items():
        accumulator = BY_NAME[name]()
        accumulator.add(array)
        found[Stat(name)] = {"x": accumulator}
    graph = ir.parse(MLP)
    return Ctx(Edit(graph), SMALL, np.random.default_rng(0), found)


DATA = np.array([-1.5, 0.25, 3.0], np.float32)


@pytest.mark.parametrize("stat", ["histogram", "minmax", "moving_average"])
def test_extremes_of_what_was_seen(stat):
    low, high = collected_range(context(**{stat: DATA}), "x")
    assert float(low) == pytest.approx(-1.5, rel=1e-3)
    assert float(high) == pytest.approx(3.0, rel=1e-3)


def test_an_absolute_maximum_is_a_symmetric_range():
    low, high = collected_range(context(absmax=DATA), "x")
    assert (float(low), float(high)) == (-3.0, 3.0)


def test_the_most_detailed_statistic_is_asked_first():
    low, high = collected_range(context(absmax=DATA * 100, histogram=DATA), "x")
    assert float(high) == pytest.approx(3.0, rel=1e-3)
    assert float(low) > -2


def test_nothing_collected_says_what_to_do():
    for method in Method:
        with pytest.raises(PassError, match=r"was collected for %y; put collect\{histogram\}"):
            searched_range(context(histogram=DATA), "y", method, U8, 99.9)
    with pytest.raises(PassError, match="no histogram was collected for %x"):
        searched_range(context(minmax=DATA), "x", Method.MSE, U8, 99.9)


def squared_error(data, low, high, qtype):
    scale, zero = integer.scale_and_zero(low, high, qtype)
    back = integer.decode(integer.encode(data, scale, zero, qtype), scale, zero, qtype)
    return float(np.square(data - back).sum())


def test_mse_beats_the_extremes_and_brute_force_beats_it_little():
    data = np.random.default_rng(0).standard_t(3, 20000).astype(np.float32)
    ctx = context(histogram=data)
    low, high = searched_range(ctx, "x", Method.MSE, U4, 99.99)
    ours = squared_error(data, low, high, U4)
    full = squared_error(data, data.min(), data.max(), U4)
    best = min(
        squared_error(data, data.min() * a, data.max() * b, U4)
        for a in np.linspace(0.05, 1, 20) for b in np.linspace(0.05, 1, 20)
    )  # fmt: skip
    assert ours < full / 4
    assert ours < best * 1.1
    assert data.min() <= low < 0 < high <= data.max()


def test_a_percentile_cuts_outliers():
    data = np.append(np.linspace(-1, 1, 9999), 50).astype(np.float32)
    low, high = searched_range(context(histogram=data), "x", Method.PERCENTILE, U8, 99.9)
    assert float(low) >= -1.01
    assert 0.9 < float(high) < 2
    assert float(searched_range(context(histogram=data), "x", Method.MINMAX, U8, 99.9)[1]) > 49


def test_the_range_that_codes_can_say():
    graph = apply(MLP, PLACE % "u8@0*f32+u8", 2).graph
    encode = ops.encode_of(graph.graph.node("h").inputs[0])
    scale, zero = (v.const_value.numpy() for v in encode.inputs[1:])
    low, high = coded_range(encode, U8)
    codes = np.array([0, 255], np.uint8)
    np.testing.assert_allclose(integer.decode(codes, scale, zero, U8), [low, high], rtol=1e-6)


# the passes ---------------------------------------------------------------------------------------


def scales(graph):
    return {
        node.inputs[0].name: node.inputs[1].const_value.numpy()
        for node in graph.graph if ops.is_op(node, "Encode")
    }  # fmt: skip


def test_clip_narrows_values_and_leaves_weights():
    place = PLACE % "u4@0*f32+u4"
    before = scales(apply(MLP, place, 4).graph)
    after = scales(apply(MLP, f"{place} | clip", 4).graph)
    for name in ("x", "r"):
        assert after[name] < before[name]
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(after[name], before[name])


def test_encode_and_decode_keep_one_scale():
    graph = apply(MLP, PLACE % "u4@0*f32+u4" + " | clip | clip_weights", 4).graph
    pairs = 0
    for node in graph.graph:
        if ops.is_op(node, "Decode"):
            assert list(node.inputs[1:]) == list(ops.encode_of(node.outputs[0]).inputs[1:])
            pairs += 1
    assert pairs == 4
    read = {v.name for n in graph.graph for v in n.inputs if v is not None}
    assert set(graph.graph.initializers) <= read, "replaced scales are gone"


def test_clipping_pays_in_decibels():
    place = PLACE % "u4@0*f32+u4"
    plain, clipped = (
        apply(MLP, f"{place}{then} | rtn", 8).report.sqnr["y"] for then in ("", " | clip")
    )
    assert clipped > plain


def test_a_scale_per_channel_is_left_alone_with_a_reason():
    with pytest.raises(PassError, match="every site was refused: its scale is not one number"):
        apply(MLP, PLACE % "u8@0x1*f32+u8" + " | clip", 2, check=Check.NONE)


WEIGHTS = [
    ("i8@0*f32", (6, 4)), ("i4@0x1*f32", (6, 4)), ("u4@4x1*f32+u4", (6, 4)), ("i2@2x2*f32", (5, 3)),
    ("i4@1x0x0x0*f16", (4, 3, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("qtype", "shape"), WEIGHTS)
def test_groups_reduce_as_loops_do(qtype, shape):
    qtype = QType.parse(qtype)
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    low, high = group_extremes(weight, qtype)
    total = group_sum(weight, qtype)
    assert low.shape == high.shape == total.shape == qtype.scale_shape(shape)
    for index in np.ndindex(low.shape):
        blocks = qtype.block if not qtype.per_tensor else (0,) * len(shape)
        place = index or (0,) * len(shape)
        cut = tuple(
            slice(i * (b or size), (i + 1) * (b or size))
            for i, b, size in zip(place, blocks, shape, strict=True)
        )
        group = weight[cut]
        assert (low[index], high[index]) == (group.min(), group.max())
        assert total[index] == pytest.approx(group.sum(), rel=1e-5)


@pytest.mark.parametrize(("qtype", "shape"), WEIGHTS)
def test_the_best_range_is_never_worse_than_the_full_one(qtype, shape):
    from passes.rounding.rtn import round_weight

    qtype = QType.parse(qtype)
    weight = np.random.default_rng(2).standard_t(3, size=shape).astype(np.float32)

    def error(scale, zero):
        back = integer.decode(round_weight(weight, scale, zero, qtype), scale, zero, qtype)
        return group_sum(np.square(weight - back), qtype)

    full = error(*integer.scale_and_zero(*group_extremes(weight, qtype), qtype))
    ours = error(*best_range(weight, qtype))
    assert (ours <= full).all()
    if qtype.bits < 8:
        assert (ours < full).any()
