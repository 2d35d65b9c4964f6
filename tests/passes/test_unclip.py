"""Bounds of activations are opened only as far as the data allows."""

import numpy as np
import pytest

import ir
import passes
from ir.errors import PipelineError
from passes.equivalent.unclip import above, upper_bound
from passes.pipeline import Pipeline

MODEL = """graph g(%x: f32[n,4]) -> %y, %z {
  %low : f32[] = const 0.0
  %six : f32[] = const 6.0
  %one : f32[] = const 1.0
  %y : f32[n,4] = Clip(%x, %low, %six)
  %z : f32[n,4] = Clip(%x, %low, %one)
}
"""


def batches():
    """One value in eight is 3, one in sixteen 7."""
    x = np.zeros((16, 4), np.float32)
    x.ravel()[::8] = 3
    x.ravel()[1::16] = 7
    return [{"x": x}, {"x": x}]


@pytest.mark.parametrize(
    ("share", "opened"), [(0, 0), (0.05, 0), (0.1, 0), (0.19, 2), (1, 2)]
)  # fmt: skip
def test_shares_are_counted_for_the_lowest_bound_of_a_value(share, opened):
    step = passes.run(ir.parse(MODEL), f"unclip{{share={share}}}", data=batches()).report.steps[0]
    assert len(step.sites) == opened
    assert len(step.skips) == 2 - opened


def test_share_above_a_bound():
    graph = ir.parse(MODEL)
    clips = [(n, upper_bound(n)) for n in graph.graph]
    assert [bound for _, bound in clips] == [6, 1]
    assert above(graph, clips[:1], batches()) == {"x": 1 / 16}
    assert above(graph, clips, batches()) == {"x": 3 / 16}
    assert above(graph, clips, []) == {}


def test_without_data_only_a_share_of_one_is_allowed():
    left = passes.run(ir.parse(MODEL), "unclip").report.steps[0]
    assert {skip.reason for skip in left.skips} == {"no data reached it"}
    opened = passes.run(ir.parse(MODEL), "unclip{share=1}").report.steps[0]
    assert len(opened.sites) == 2


def test_factors_pass_what_was_opened():
    text = """graph g(%x: f32[n,2]) -> %y {
      %w : f32[2,2] = const [4, 0.5, 2, 1]
      %v : f32[2,2] = const [1, 0.5, -9, 3]
      %low : f32[] = const 0.0
      %high : f32[] = const 600.0
      %h : f32[n,2] = MatMul(%x, %w)
      %c : f32[n,2] = Clip(%h, %low, %high)
      %y : f32[n,2] = MatMul(%c, %v)
    }
    """
    data = [{"x": np.ones((3, 2), np.float32)}]
    steps = passes.run(ir.parse(text), "unclip | equalize", data=data).report.steps
    assert steps[0].sqnr["y"] == np.inf
    assert len(steps[1].sites) == 1


def test_a_share_is_one():
    with pytest.raises(PipelineError, match="share must lie"):
        Pipeline.parse("unclip{share=2}")
