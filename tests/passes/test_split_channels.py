"""Channels split into parts and merged again: exact alone, the width kept, the error lower."""

import numpy as np
import pytest

import ir
import passes
from backends import reference
from backends.torch import Executor
from ir.analysis.streams import streams
from ir.edit import Edit
from ir.errors import VerifyError
from ir.fold import fold_repeat, repeat_refusal
from ir.qtype import QType
from passes.equivalent import split_channels
from passes.equivalent.diagonal import Channels, rounded
from passes.equivalent.similar import distances, matched, scores
from passes.equivalent.split_channels import candidates, cost_of_merging, loss, order_of
from passes.equivalent.suppress import rounded_values
from passes.sites import linears

ROW, VALUES = QType.parse("i8@0x1*f32"), QType.parse("u8@0*f32+u8")
NORM = """graph g(%x: f32[n,16]) -> %y, %z {
  %g : f32[16] = const [1, 30, 1, 1, 0.5, 1, 1, 2, 1, 1, 25, 1, 1, 1, 1, 1]
  %h : f32[n,16] = RMSNormalization(%x, %g) {axis=-1}
  %w : f32[16,8] = const seed:3
  %v : f32[4,16] = const seed:4
  %y : f32[n,8] = MatMul(%h, %w)
  %z : f32[n,4] = Gemm(%h, %v) {transB=1}
}
"""
GATED = """graph g(%x: f32[n,8]) -> %y {
  %u : f32[8,16] = const seed:1
  %s : f32[16] = const [1, 30, 1, 1, 0.5, 1, 1, 2, 1, 1, 25, 1, 1, 1, 1, 1]
  %w : f32[8,16] = const seed:2
  %v : f32[16,4] = const seed:3
  %e : f32[8,16] = Mul(%w, %s)
  %a : f32[n,16] = MatMul(%x, %u)
  %t : f32[n,16] = Tanh(%a)
  %b : f32[n,16] = MatMul(%x, %e)
  %m : f32[n,16] = Mul(%t, %b)
  %y : f32[n,4] = MatMul(%m, %v)
}
"""


def data(width, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(64, width)).astype(np.float32)} for _ in range(2)]


def gated():
    return passes.run(ir.parse(GATED), "fold_constants").graph


def widths(graph):
    return [site.weight.shape[site.inputs[0]] for site in linears(graph)]


def rows(seed=0, kept=256):
    x = np.random.default_rng(seed).normal(size=(512, 16)).astype(np.float32)
    x[:, [1, 10]] *= [30, 25]
    return Channels.of(x, kept)


def test_parts_add_up_exactly():
    """In double precision: y = sum over parts of x / t times the same row."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(50, 12)) * np.exp(3 * rng.normal(size=12)), rng.normal(size=(12, 7))
    top = np.abs(x).max(0)
    parts = candidates(top, 2.0)[-1]
    order = order_of(parts, np.ones(len(parts)))
    wide = x[:, order] / parts[order]
    assert len(order) == parts.sum() > 15
    np.testing.assert_allclose(wide @ w[order], x @ w, rtol=0, atol=1e-12 * np.abs(x @ w).max())
    assert np.abs(wide).max() < top.max() / 2


def test_thresholds_bring_every_channel_below_and_keep_to_the_ratio():
    top = np.array([10.0, 1, 0.5, 4, 0, 1, 1, 1])
    tries = candidates(top, 0.5)
    assert (tries[0] == 1).all()
    added = [int(parts.sum()) - len(top) for parts in tries]
    assert added == sorted(set(added))
    assert added[-1] <= 4
    for parts in tries:
        limit = (top / parts).max()
        assert (np.maximum(1, np.ceil(top / limit)) == parts).all()
    assert len(candidates(np.zeros(3), 0.5)) == 1


def test_predicted_error_is_that_of_the_split_layer():
    seen, rng = rows(), np.random.default_rng(1)
    weight = rng.normal(size=(16, 5)).astype(np.float32)
    parts = candidates(seen.top, 0.5)[-1]
    order = order_of(parts, np.ones(len(parts)))
    t = parts[order].astype(np.float32)
    values = rounded_values(
        seen.rows[:, order] / t, seen.low[order] / t, seen.high[order] / t, VALUES
    )
    error = np.square(values @ rounded(weight[order], ROW) - seen.rows @ weight).mean()
    assert loss(parts, seen, weight, rounded(weight, ROW), VALUES) == pytest.approx(error, rel=1e-3)
    plain = loss(np.ones(16, int), seen, weight, rounded(weight, ROW), VALUES)
    assert error < plain / 2


@pytest.mark.parametrize("text", [NORM, GATED])
def test_the_function_stays_and_the_range_falls(text):
    feeds = data(16 if text is NORM else 8)
    graph = gated() if text is GATED else ir.parse(text)
    done = passes.run(graph, "split_channels{ratio=0.5}", data=feeds)
    before = reference.run(graph, feeds[0], dtype=np.float64)
    after = reference.run(done.graph, feeds[0], dtype=np.float64)
    for name, wanted in before.items():
        np.testing.assert_allclose(after[name], wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    read = [site.x.name for site in linears(done.graph)][-1]
    held = [site.x.name for site in linears(graph)][-1]
    new = Executor(done.graph).run(feeds[0], outputs=[read])[read].abs().max()
    old = Executor(graph).run(feeds[0], outputs=[held])[held].abs().max()
    assert new < old / 2
    online = sum(n.op_type == "Gather" for n in done.graph.graph)
    assert online == (text is NORM), "a gated layer computes the parts itself; a norm cannot"


def test_the_gate_is_repeated_as_it_is():
    done = passes.run(gated(), "split_channels{ratio=0.5}", data=data(8)).graph
    gate, up, down = (site.weight.const_value.numpy() for site in linears(done))
    u, w, v = (site.weight.const_value.numpy() for site in linears(gated()))
    order = [int(np.flatnonzero((u == column[:, None]).all(axis=0))[0]) for column in gate.T]
    counts = np.bincount(order, minlength=16)
    assert counts.min() == 1
    assert counts[1] > 1
    np.testing.assert_allclose(up, w[:, order] / counts[order], rtol=1e-6)
    np.testing.assert_allclose(down, v[order], rtol=1e-6)


def test_parts_stand_beside_whole_channels_of_small_weights():
    """Kernels add up products of places 2j and 2j + 1."""
    parts, widest = np.array([1, 4, 1, 1, 2, 1, 1, 1, 1, 1]), np.arange(10)[::-1]
    order = order_of(parts, widest)
    assert np.bincount(order).tolist() == parts.tolist()
    pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
    assert ((parts[pairs] > 1).sum(axis=1) <= 1).all()
    assert {int(c) for c in pairs[:6, 1]} == {9, 8, 7, 6, 5, 3}
    crowded = order_of(np.array([3, 1]), np.ones(2))
    assert np.bincount(crowded).tolist() == [3, 1]


@pytest.mark.parametrize("options", ["ratio=0", "gain=60"])
def test_without_extra_channels_the_graph_is_unchanged(options):
    graph = ir.parse(NORM)
    done = passes.run(graph, f"split_channels{{{options}}}", data=data(16))
    assert ir.show(done.graph) == ir.show(graph)
    assert done.report.steps[0].changes == 0
    assert "less than" in done.report.steps[0].skips[0].reason


@pytest.mark.parametrize("text", [NORM, GATED])
def test_merging_brings_the_width_back(text):
    graph = gated() if text is GATED else ir.parse(text)
    feeds = data(16 if text is NORM else 8)
    split = passes.run(graph, "split_channels{ratio=0.3}", data=feeds).graph
    both = "split_channels{ratio=0.3} | collect{gram} | merge_channels"
    done = passes.run(graph, both, data=feeds)
    assert sum(widths(split)) > sum(widths(graph))
    assert widths(done.graph)[-1] == widths(graph)[-1]
    again = passes.run(done.graph, "collect{gram} | merge_channels", data=feeds).report
    assert not again.steps[-1].sites, "what was merged is not wide any more"


def test_scores_are_what_an_output_loses():
    """Paper's score, by brute force: |w_i (x_j - x_i) / 2 + w_j (x_i - x_j) / 2|^2."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(40, 5)), rng.normal(size=(5, 3))
    found = scores(x.T @ x / len(x), w)
    for i in range(5):
        for j in range(5):
            d = (x[:, j] - x[:, i])[:, None] / 2
            lost = np.square(d * w[i] - d * w[j]).sum(axis=1).mean()
            assert found[i, j] == pytest.approx(lost, abs=1e-12)


def test_equal_channels_or_equal_weights_lose_nothing():
    x = np.random.default_rng(0).normal(size=(40, 4))
    x[:, 3] = x[:, 0]
    w = np.arange(12.0).reshape(4, 3) ** 2
    w[2] = w[1]
    found = scores(x.T @ x / 40, w)
    assert found[0, 3] == pytest.approx(0, abs=1e-9)
    assert found[1, 2] == pytest.approx(0, abs=1e-9)
    assert found[0, 1] > 1
    assert (distances(x.T @ x) >= 0).all()


def test_pairs_are_disjoint_cheap_and_leave_parts_alone():
    costs = np.array([[0, 5, 0, 1.0], [5, 0, 2, 0], [0, 2, 0, 9], [1, 0, 9, 0]])
    assert matched(costs, 2, np.zeros(4, bool)).tolist() == [[0, 3], [2, 1]]
    fixed = np.array([True, False, False, False])
    assert matched(costs, 2, fixed).tolist() == [[1, 2]]
    assert matched(costs, 2, np.ones(4, bool)).shape == (0, 2)
    assert matched(costs, 0, fixed).shape == (0, 2)


def test_merging_is_counted_where_it_is_asked_for():
    """Channels that nothing is like: splitting pays, splitting and merging does not."""
    weight = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32) * 10
    tries = candidates(rows().top, 0.5)
    costs = cost_of_merging(tries, rows().rows, weight)
    assert costs[0] == 0
    assert (np.diff(costs) > 0).all()
    alone = passes.run(ir.parse(NORM), "split_channels{ratio=0.3}", data=data(16)).report.steps[0]
    merged = "split_channels{ratio=0.3,merged=true}"
    both = passes.run(ir.parse(NORM), merged, data=data(16)).report.steps[0]
    assert len(alone.sites) == 1
    assert not both.sites


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_layers_err_less(bits):
    """Card qllm: split, then split and merged, then plain at 4 bits; at 8 merging may tie."""
    graph, feeds = ir.parse(SIMILAR), data(16)
    types = f"w=i{bits}@0x1*f32,a=i{bits}@1x0*f32"
    code = f"place{{{types},dynamic=true,portable=true}} | rtn"
    split = f"split_channels{{{types},ratio=0.2}}"
    plain, parts, merged = (
        passes.run(graph, f"{before}{code}", data=feeds).report.sqnr["y"]
        for before in ("", f"{split} | ", f"{split} | collect{{gram}} | merge_channels | ")
    )
    assert parts > plain + 1
    assert merged > plain + (3 if bits == 4 else -1)


SIMILAR = """graph g(%x: f32[n,16]) -> %y {
  %g : f32[16] = const [1, 30, 1, 1, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 25, 1, 1, 1, 1, 1]
  %h : f32[n,16] = RMSNormalization(%x, %g) {axis=-1}
  %w : f32[16,8] = const seed:3
  %y : f32[n,8] = MatMul(%h, %w)
}
"""
"""Six channels that are nearly zero: merging two of them loses next to nothing."""


def test_a_copy_that_does_not_share_its_weight_is_caught(monkeypatch):
    fold = split_channels.fold_repeat

    def undivided(stream, order, edit):
        import dataclasses

        fold(dataclasses.replace(stream, writers=(*stream.writers, *stream.readers), readers=()),
             order, edit)  # fmt: skip

    monkeypatch.setattr(split_channels, "fold_repeat", undivided)
    monkeypatch.setattr(split_channels, "repeat_refusal", lambda *_: "")
    monkeypatch.setattr("ir.fold.repeat.repeat_refusal", lambda *_: "")
    with pytest.raises(VerifyError, match="'split_channels' claims EXACT but moved output %y"):
        passes.run(gated(), "split_channels{ratio=0.5}", data=data(8))


def test_orders_that_do_not_repeat_are_refused():
    stream = next(s for s in streams(gated(), "permute") if not s.blocked)
    assert repeat_refusal(stream, np.arange(16)) == ""
    assert "at least once" in repeat_refusal(stream, np.arange(15))
    with pytest.raises(ValueError, match="at least once"):
        fold_repeat(stream, np.zeros(16, int), Edit(gated(), "test"))
