"""Biases moved behind a ReLU: exact above what is moved, and what a normal channel leaves below."""

import numpy as np
import pytest

import ir
import passes
from backends.torch import Executor
from ir.errors import PipelineError
from passes.equivalent.absorb_bias import absorbed

RELU = """graph g(%x: f32[n,8]) -> %y {
  %w : f32[8,16] = const seed:1
  %b : f32[16] = const [12, 14, 9, 0.5, -1, 20, 10, 0, 11, 13, 8, 15, 2, 1, 3, 16]
  %v : f32[16,4] = const seed:2
  %d : f32[4] = const seed:3
  %h : f32[n,8] = Identity(%x)
  %g : f32[n,16] = Gemm(%h, %w, %b)
  %r : f32[n,16] = Relu(%g)
  %y : f32[n,4] = Gemm(%r, %v, %d)
}
"""
CONV = """graph g(%x: f32[n,2,5,5]) -> %y {
  %w : f32[3,2,3,3] = const seed:1
  %b : f32[3] = const [30, 0.5, 40]
  %v : f32[2,3,2,2] = const seed:2
  %h : f32[n,3,3,3] = Conv(%x, %w, %b)
  %r : f32[n,3,3,3] = Relu(%h)
  %y : f32[n,2,2,2] = Conv(%r, %v)
}
"""


def data(*shape, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [{"x": (scale * rng.normal(size=shape)).astype(np.float32)} for _ in range(4)]


def run(text, feeds, pipeline="collect{moments} | absorb_bias"):
    return passes.run(ir.parse(text), pipeline, data=feeds)


def test_what_is_moved_is_the_mean_less_deviations():
    mean, variance = np.array([5.0, 1, -3, 0]), np.array([1.0, 4, 1, 0])
    np.testing.assert_allclose(absorbed(mean, variance, 3), [2, 0, 0, 0])
    np.testing.assert_allclose(absorbed(mean, variance, 0.25), [4.75, 0.5, 0, 0])


@pytest.mark.parametrize(("text", "shape"), [(RELU, (64, 8)), (CONV, (8, 2, 5, 5))])
def test_exact_where_the_channels_stay_above(text, shape):
    """Inputs near zero: every channel with a large bias stays near it."""
    feeds = data(*shape, scale=0.01)
    done = run(text, feeds, "collect{moments} | absorb_bias{sigmas=12}")
    assert done.report.steps[-1].sites == ["%r.shifted"]
    assert done.report.sqnr["y"] > 110
    bias = next(n.inputs[2] for n in done.graph.graph if n.op_type in ("Gemm", "Conv"))
    assert np.abs(bias.const_value.numpy()).max() < 4, "the biases are still large"


def test_lossy_where_they_do_not():
    """At half a deviation a third of the values is below: the check that would see it."""
    feeds = data(64, 8)
    exact = run(RELU, feeds, "collect{moments} | absorb_bias{sigmas=6}").report
    lossy = run(RELU, feeds, "collect{moments} | absorb_bias{sigmas=0.5}").report
    assert lossy.sqnr["y"] < 40
    assert exact.sqnr.get("y", np.inf) > lossy.sqnr["y"] + 20


def test_the_range_of_all_channels_shrinks():
    """What it is for: one scale for values whose channels have large means of their own."""
    feeds = data(64, 8, scale=0.1)
    done = run(RELU, feeds).graph
    tops = []
    for graph in (ir.parse(RELU), done):
        name = next(n.outputs[0].name for n in graph.graph if n.op_type == "Relu")
        found = Executor(graph).run(feeds[0], outputs=[name])[name].numpy()
        tops.append(found.max())
        assert (found.max(axis=0) > 0).sum() >= 14, "channels have died"
    assert tops[0] > 19
    assert tops[1] < 4


def test_statistics_are_collected_again_behind_it():
    with pytest.raises(PipelineError, match="needs 'moments', dropped by step 2"):
        run(RELU, data(4, 8), "collect{moments} | absorb_bias | absorb_bias")
