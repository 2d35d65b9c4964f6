"""Cross-layer equalization: one range on both sides of every channel, the same function."""

import numpy as np
import pytest

import ir
import passes
from ir.analysis.streams import streams
from ir.errors import VerifyError
from passes.equivalent.equalize import balanced, layers, ranges, refusal, step
from tests.models.reference import captured

CHAIN = """
graph g(%x: f32[n,8]) -> %y {
  %a : f32[8,32] = const seed:1
  %s : f32[32] = const seed:2
  %e : f32[32] = Exp(%s)
  %w : f32[8,32] = Mul(%a, %e)
  %h : f32[n,32] = MatMul(%x, %w)
  %r : f32[n,32] = Relu(%h)
  %b : f32[32,16] = const seed:3
  %i : f32[n,16] = MatMul(%r, %b)
  %c : f32[16,4] = const seed:4
  %y : f32[n,4] = MatMul(%i, %c)
}
"""
"""The first layer's 32 outputs have log-normal ranges."""


def folded():
    return passes.run(ir.parse(CHAIN), "fold_constants").graph


def test_both_sides_of_every_channel_have_one_range():
    graph = passes.run(folded(), "equalize").graph
    seen = 0
    for stream in streams(graph):
        if refusal(stream):
            continue
        weights = {
            (id(p.node), p.input): np.abs(p.tensor.const_value.numpy()).astype(float)
            for p in (*layers(stream.writers), *layers(stream.readers))
        }
        before, after = (ranges(stream, p, weights) for p in (stream.writers, stream.readers))
        np.testing.assert_allclose(before, after, rtol=1e-3)
        assert before.min() > 0
        seen += 1
    assert seen == 2


def test_factors_are_those_of_one_pair_where_there_is_one():
    """s = sqrt(r1 r2) / r2, channel by channel, against a loop."""
    rng = np.random.default_rng(0)
    w, v = rng.standard_normal((5, 6)), rng.standard_normal((6, 3))
    w[:, 2] = 0
    s = step(np.abs(w).max(0), np.abs(v).max(1))
    for c in range(6):
        r1, r2 = max(abs(w[:, c])), max(abs(v[c]))
        assert s[c] == pytest.approx(1 if c == 2 else (r1 * r2) ** 0.5 / r2)


def test_a_second_time_changes_nothing():
    found = [s for s in streams(passes.run(folded(), "equalize").graph) if not refusal(s)]
    assert found
    for s in balanced(found, 50):
        np.testing.assert_allclose(s, 1, atol=1e-3)


@pytest.mark.parametrize(("bits", "gain"), [(8, 3), (6, 3), (4, 3)])
def test_one_scale_a_weight_costs_less_afterwards(bits, gain):
    """Card dfq-cle: layers whose channels differ log-normally, weights of one scale each."""
    recipe = f"place{{w=i{bits}@0*f32}} | rtn"
    data = {"x": np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)}
    plain, equal = (
        passes.run(folded(), p, data=data).report.sqnr["y"]
        for p in (recipe, f"equalize | {recipe}")
    )
    assert equal > plain + gain


def test_a_scale_forgotten_on_one_side_is_caught(monkeypatch):
    from passes.equivalent import equalize

    fold = equalize.fold_scale

    def without_readers(stream, s, edit):
        import dataclasses

        fold(dataclasses.replace(stream, readers=stream.readers[1:]), s, edit)

    monkeypatch.setattr(equalize, "fold_scale", without_readers)
    with pytest.raises(VerifyError, match="'equalize' claims EXACT but moved output %y"):
        passes.run(folded(), "equalize")


@pytest.mark.parametrize(
    ("name", "count"),
    [("fashion_cnn", 9), *(pytest.param(*each, marks=pytest.mark.slow) for each in (
        ("resnet18", 12), ("mobilenetv2", 7), ("efficientnet_lite0", 7), ("ppocr_det", 45)))],
)  # fmt: skip
def test_real_models_keep_their_function(name, count):
    step = passes.run(captured(name), "clean | equalize").report.steps[-1]
    assert len(step.sites) == count, {skip.reason for skip in step.skips}
    assert step.difference <= 1e-5
