"""Smoothing computes the same, and lowers the noise of codes that it predicts."""

import numpy as np
import onnx.parser

import ir
import passes
from backends.torch import Executor
from passes.equivalent.diagonal import Channels, balanced
from passes.equivalent.smooth import STRENGTHS, best_factors, noise

MODEL = """
<ir_version: 10, opset_import: ["": 21]>
g (float[B,8] x) => (float[B,4] a, float[B,4] b, float[B,8] c) {
    h = Relu(x)
    a = MatMul(h, w)
    b = Gemm<transB = 1>(h, v)
    c = Neg(h)
}
"""
SPREAD = np.array([1, 1, 60, 1, 1, 1, 1, 1], np.float32)


def model():
    rng = np.random.default_rng(0)
    text = onnx.parser.parse_model(MODEL)
    for name, shape in (("w", (8, 4)), ("v", (4, 8))):
        data = rng.normal(size=shape).astype(np.float32)
        text.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    return ir.capture(text)


def batches(spread):
    rng = np.random.default_rng(1)
    return [{"x": (rng.normal(size=(64, 8)) * spread).astype(np.float32)} for _ in range(3)]


def test_readers_share_one_product_and_others_read_the_value_itself():
    graph = model()
    done = passes.run(graph, "smooth{gain=1}", data=batches(SPREAD)).graph
    products = [n for n in done.graph if n.op_type == "Mul"]
    assert len(products) == 1
    assert {u.node.op_type for u in products[0].outputs[0].uses()} == {"MatMul", "Gemm"}
    assert next(n for n in done.graph if n.op_type == "Neg").inputs[0].name == "h"
    feeds = batches(SPREAD)[0]
    before, after = Executor(graph).run(feeds), Executor(done).run(feeds)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-5, atol=1e-4)


NORMED = """
graph g(%x: f32[n,8]) -> %y, %z {
  %g : f32[8] = const [1, 1, 60, 1, 1, 1, 1, 1]
  %b : f32[8] = const seed:3
  %h : f32[n,8] = LayerNormalization(%x, %g, %b)
  %w : f32[8,4] = const seed:1
  %v : f32[8,2] = const seed:2
  %y : f32[n,4] = MatMul(%h, %w)
  %z : f32[n,2] = MatMul(%h, %v)
}
"""
TAPPED = NORMED.replace("-> %y, %z", "-> %y, %z, %h")


def test_a_norm_takes_the_factors_of_all_its_readers():
    done = passes.run(ir.parse(NORMED), "smooth{gain=1}", data=batches(np.ones(8, np.float32)))
    assert [n.op_type for n in done.graph.graph] == ["LayerNormalization", "MatMul", "MatMul"]
    assert len(done.report.steps[0].sites) == 1
    assert done.report.steps[0].difference <= 1e-5
    gain = done.graph.graph[0].inputs[1].const_value.numpy()
    assert gain.max() / gain.min() < 30


def test_a_norm_that_others_read_gets_a_product_or_is_skipped():
    data = batches(np.ones(8, np.float32))
    done = passes.run(ir.parse(TAPPED), "smooth{gain=1}", data=data)
    assert sum(n.op_type == "Mul" for n in done.graph.graph) == 1
    left = passes.run(ir.parse(TAPPED), "smooth{gain=1,online=false}", data=data).report.steps[0]
    assert not left.sites
    assert [skip.reason for skip in left.skips] == ["the graph puts %h out"]


def test_it_pays_with_an_outlying_channel_only():
    even = passes.run(model(), "smooth{gain=3}", data=batches(np.ones(8, np.float32)))
    assert not even.report.steps[0].sites
    assert "less than 3" in even.report.steps[0].skips[0].reason
    codes = "collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn"
    plain = passes.run(model(), codes, data=batches(SPREAD)).report.steps[-1].sqnr
    smooth = passes.run(model(), f"smooth | {codes}", data=batches(SPREAD)).report.steps[-1].sqnr
    assert smooth["a"] > plain["a"] + 3
    assert smooth["b"] > plain["b"] + 3


def test_predicted_noise_is_that_of_uniform_rounding():
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (4000, 8)).astype(np.float32) * SPREAD
    weight = rng.normal(size=(8, 5)).astype(np.float32)
    channels = Channels.of(x)
    step, steps = 2 * np.abs(x).max() / 255, np.abs(weight).max(0) / 127
    coded = (np.round(x / step) * step) @ (np.round(weight / steps) * steps)
    error = np.square(coded - x @ weight).sum(axis=1).mean()
    predicted = noise(channels, weight, np.ones(8))
    assert 0.5 < error / predicted < 2


def test_factors_leave_dead_channels_alone_and_never_add_noise():
    weight = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
    top = SPREAD.copy()
    top[4] = 0
    weight[5] = 0
    channels, widest = Channels.of(np.stack([top, -top, top / 2])), np.abs(weight).max(axis=1)
    rules = [balanced(top, widest, a) for a in STRENGTHS]
    factors, gain = best_factors(channels, weight, rules)
    assert factors[4] == factors[5] == 1
    assert (factors > 0).all()
    assert gain > 3
    assert best_factors(Channels.of(np.zeros((2, 8))), weight, rules)[1] == 0


def test_rare_spikes_are_no_outlying_channel():
    data = [{"x": np.random.default_rng(4).normal(size=(1000, 8)).astype(np.float32)}]
    data[0]["x"][0, 2] = 500
    step = passes.run(model(), "smooth{gain=0}", data=data).report.steps[0]
    assert not step.sites
    assert step.skips[0].reason == "its largest channel is large in rare places only"
