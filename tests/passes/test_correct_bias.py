"""Mean shifts of rounded weights leave through the bias (card dfq-cle, equation of section 4.2)."""

import numpy as np
import pytest

import ir
from calib.stats import Moments
from passes import evaluate
from passes.core import Stat
from passes.rounding.correct_bias import mean_shift
from passes.sites import linears
from tests.helpers import MLP, apply, feeds

ROUND = "collect{moments} | place{w=i4@0*f32} | rtn"


def net(body, inputs, output):
    return f"graph g({inputs}) -> %y {{\n{body}\n%y : f32 = Identity({output})\n}}"


BIAS = "%b : f32[6] = const seed:2\n"
NETS = {
    "matmul": net(
        "%w : f32[4,6] = const seed:1\n" + BIAS + "%h : f32[n,6] = MatMul(%x, %w)\n"
        "%z : f32[n,6] = Add(%h, %b)", "%x: f32[n,4]", "%z"),
    "matmul of rank 3": net(
        "%w : f32[4,6] = const seed:1\n" + BIAS + "%h : f32[n,5,6] = MatMul(%x, %w)\n"
        "%z : f32[n,5,6] = Add(%b, %h)", "%x: f32[n,5,4]", "%z"),
    "gemm": net(
        "%w : f32[4,6] = const seed:1\n" + BIAS + "%z : f32[n,6] = Gemm(%x, %w, %b)",
        "%x: f32[n,4]", "%z"),
    "gemm, transposed": net(
        "%w : f32[6,4] = const seed:1\n" + BIAS + "%z : f32[n,6] = Gemm(%x, %w, %b) {transB=1}",
        "%x: f32[n,4]", "%z"),
    "conv 1x1": net(
        "%w : f32[6,4,1,1] = const seed:1\n" + BIAS + "%z : f32[n,6,3,3] = Conv(%x, %w, %b)",
        "%x: f32[n,4,3,3]", "%z"),
    "conv 1x1, two groups": net(
        "%w : f32[6,2,1,1] = const seed:1\n" + BIAS
        + "%z : f32[n,6,3,3] = Conv(%x, %w, %b) {group=2}",
        "%x: f32[n,4,3,3]", "%z"),
    "depthwise": net(
        "%w : f32[6,1,1] = const seed:1\n" + BIAS + "%z : f32[n,6,5] = Conv(%x, %w, %b) {group=6}",
        "%x: f32[n,6,5]", "%z"),
    "conv 3x3 of its own size": net(
        "%w : f32[6,4,3,3] = const seed:1\n" + BIAS + "%z : f32[n,6,1,1] = Conv(%x, %w, %b)",
        "%x: f32[n,4,3,3]", "%z"),
}  # fmt: skip


def shifts(graph, data, tested):
    """|mean of y^ - mean of y| per output channel, over all data, in double precision."""
    import torch

    one, two = (
        np.concatenate([o["y"] for o in evaluate.outputs_of(g, data, torch.float64)])
        for g in (graph, tested)
    )
    axis = -1 if one.ndim == 2 or one.shape[-1] == 6 else 1
    rest = tuple(i for i in range(one.ndim) if i != axis % one.ndim)
    return np.abs(two.mean(rest) - one.mean(rest))


def skewed(graph, count=3, size=32):
    """Data whose channels have means of their own: without them there is no shift to see."""
    return [{k: a * 0.5 + np.float32(1.5) for k, a in f.items()} for f in feeds(graph, count, size)]


@pytest.mark.parametrize("name", sorted(NETS))
def test_means_are_restored_on_the_calibration_data(name):
    graph = ir.parse(NETS[name])
    data = skewed(graph)
    if "own size" in name:  # every position of the kernel must see the same mean
        data = [{"x": np.broadcast_to(f["x"][:, :, :1, :1], f["x"].shape).copy()} for f in data]
    rounded = apply(graph, ROUND, data)
    shifted = shifts(graph, data, rounded.graph)
    fixed = apply(graph, f"{ROUND} | correct_bias", data)
    assert fixed.report.steps[-1].sites, fixed.report.steps[-1].skips
    assert shifted.max() > 1e-2, "there is something to correct"
    assert shifts(graph, data, fixed.graph).max() < 1e-6
    assert fixed.report.sqnr["y"] > rounded.report.sqnr["y"]


def test_a_sign_error_would_be_seen():
    """b' = b + shift doubles the shift: the measure above tells them apart."""
    graph = ir.parse(NETS["gemm"])
    data = skewed(graph)
    fixed = apply(graph, f"{ROUND} | correct_bias", data).graph
    rounded = apply(graph, ROUND, data).graph
    name = next(k for k in fixed.graph.initializers if "corrected" in k)
    bias = rounded.graph.initializers["b"].const_value.numpy()
    wrong = 2 * bias - fixed.graph.initializers[name].const_value.numpy()
    import onnx_ir

    fixed.graph.initializers[name].const_value = onnx_ir.tensor(wrong)
    assert shifts(graph, data, fixed).max() == pytest.approx(
        2 * shifts(graph, data, rounded).max(), rel=1e-3
    )


@pytest.mark.parametrize("name", sorted(NETS))
def test_mean_shift_is_the_layer_applied_to_the_mean(name):
    """E[x W'] - E[x W] by loops over outputs, groups and window positions."""
    (site,) = linears(ir.parse(NETS[name]))
    shape = site.weight.const_value.shape.numpy()
    rng = np.random.default_rng(0)
    error = rng.normal(size=shape)
    channels = 6 if name == "depthwise" else 4
    mean = rng.normal(size=channels)
    found = mean_shift(error, mean, site)
    groups = site.node.attributes["group"].value if "group" in site.node.attributes else 1
    for n in range(6):
        total = 0.0
        for index in np.ndindex(shape):
            if index[site.output] != n:
                continue
            k = index[site.inputs[0]]
            total += error[index] * mean[k + n // (6 // groups) * (channels // groups)]
        assert found[n] == pytest.approx(total)


def test_the_whole_recipe_restores_means_better_than_none():
    graph = ir.parse(MLP)
    data = skewed(graph, 4)
    place = "collect{[histogram moments]} | place{w=i4@0x1*f32,a=u8@0*f32+u8} | rtn"
    import torch

    def gap(result):
        one, two = (
            np.concatenate([o["y"] for o in evaluate.outputs_of(g, data, torch.float64)])
            for g in (graph, result.graph)
        )
        return np.abs(two.mean(0) - one.mean(0)).max()

    assert gap(apply(graph, f"{place} | correct_bias", data)) < gap(apply(graph, place, data)) / 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (MLP.replace("Gemm(%x, %w1, %b1)", "Gemm(%x, %w1)"), "it has no constant bias"),
        (MLP.replace("Gemm(%x, %w1, %b1)", "Gemm(%x, %w1, %b1) {beta=0.5}"),
         "it has no constant bias"),
    ],
)  # fmt: skip
def test_layers_left_out_are_reported(text, reason):
    result = apply(text, f"{ROUND} | correct_bias", 2)
    (skip,) = result.report.steps[-1].skips
    assert (skip.site, skip.reason) == ("Gemm 'h'", reason)
    assert result.report.steps[-1].sites == ["MatMul 'm'"]


def test_batches_of_matrices_share_no_bias():
    text = """graph g(%x: f32[2,5,4]) -> %y {
      %w : f32[2,4,6] = const seed:1
      %b : f32[6] = const seed:2
      %h : f32[2,5,6] = MatMul(%x, %w)
      %y : f32[2,5,6] = Add(%h, %b)
    }"""
    result = apply(text, f"{ROUND} | correct_bias", 2)
    (skip,) = result.report.steps[-1].skips
    assert skip.reason == "its weight is a batch of matrices, its bias serves them all"


def test_an_input_that_was_not_measured():
    part = apply(MLP, ROUND, 2)
    stats = {Stat.MOMENTS: {"r": part.stats[Stat.MOMENTS]["r"]}}
    result = apply(part.graph, "correct_bias", 2, stats=stats, float_graph=part.float_graph)
    (skip,) = result.report.steps[0].skips
    assert (skip.site, skip.reason) == ("Gemm 'h'", "the mean of its input was not collected")
    assert isinstance(part.stats[Stat.MOMENTS]["r"], Moments)
