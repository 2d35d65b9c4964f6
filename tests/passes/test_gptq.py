"""gptq: the recursion against its definition, what degenerate Hessians do, and the pass."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ir
import passes
from ir.errors import PassError
from ir.formats import integer
from ir.qtype import QType
from passes.rounding import gptq
from passes.rounding.core import IntegerGrid, KeepOutliers, SolveError, factor, solve
from tests.helpers import TINY, apply, tiny_graph

PLACED = "as_float32 | clean | place{w=u4@32x1*f32+u4} | clip_weights | "


def case(rows: int, columns: int, seed: int, samples: int = 64):
    """Weights [N, K], a Hessian of correlated inputs [K, K], and one scale a row [K, N]."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns))
    x = rng.standard_normal((samples, columns)) @ rng.standard_normal((columns, columns))
    scale = np.abs(weight).max(1) / 7
    return weight, x.T @ x, np.broadcast_to(scale, (columns, rows)).copy()


def by_definition(weight, hessian, scale, damp):
    """GPTQ as OBQ in a fixed order: after every column the inverse of what is left is made anew."""
    h = hessian + damp * np.diagonal(hessian).mean() * np.eye(len(hessian))
    w, q = weight.copy(), np.empty_like(weight)
    for k in range(len(h)):
        inverse = np.linalg.inv(h[k:, k:])
        q[:, k] = np.clip(np.rint(w[:, k] / scale[k]), -7, 7) * scale[k]
        error = (w[:, k] - q[:, k]) / inverse[0, 0]
        w[:, k:] -= np.outer(error, inverse[0])
    return q


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_it_is_what_the_definition_says(rows, columns, seed):
    weight, hessian, scale = case(rows, columns, seed)
    found = solve(weight, hessian, IntegerGrid(scale, None, -7, 7), damp=0.05)
    np.testing.assert_allclose(found.values, by_definition(weight, hessian, scale, 0.05), atol=1e-9)


@pytest.mark.parametrize("columns", [5, 64, 100, 300])
def test_without_correlation_it_rounds_to_nearest(columns):
    weight, _, scale = case(4, columns, 1)
    found = solve(weight, np.eye(columns), IntegerGrid(scale, None, -7, 7))
    qtype = QType.parse("i4@1x0*f32")
    nearest = integer.encode(weight, scale[0].reshape(-1, 1), None, qtype).astype(np.int8)
    assert np.array_equal(found.codes, np.maximum(nearest, -7))


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_the_loss_that_it_tells_is_the_error_that_there_is(kind):
    weight, hessian, scale = case(7, 150, 2, samples=400)
    found = solve(weight.astype(kind), hessian, IntegerGrid(scale.astype(kind), None, -7, 7))
    delta = found.values - weight
    error = np.einsum("nk,kl,nl->", delta, hessian, delta)
    assert found.error == pytest.approx(error, rel=1e-9 if kind is np.float64 else 1e-3)
    nearest = np.clip(np.rint(weight / scale.T), -7, 7) * scale.T - weight
    assert error < 0.5 * np.einsum("nk,kl,nl->", nearest, hessian, nearest)


def test_an_order_moves_the_turns_and_not_the_places():
    weight, hessian, scale = case(3, 40, 3, samples=100)
    order = np.random.default_rng(0).permutation(40)
    found = solve(weight, hessian, IntegerGrid(scale, None, -7, 7), order=order)
    moved = solve(
        weight[:, order], hessian[np.ix_(order, order)], IntegerGrid(scale[order], None, -7, 7)
    )
    np.testing.assert_allclose(found.values[:, order], moved.values, atol=1e-12)


def test_channels_without_input_are_rounded_to_nearest():
    weight, hessian, scale = case(3, 20, 4, samples=50)
    hessian[[2, 7]] = 0
    hessian[:, [2, 7]] = 0
    found = solve(weight, hessian, IntegerGrid(scale, None, -7, 7))
    assert found.dead == 2
    nearest = np.clip(np.rint(weight / scale.T), -7, 7)
    assert np.array_equal(found.codes[:, [2, 7]], nearest[:, [2, 7]])
    alive = np.delete(np.arange(20), [2, 7])
    rest = solve(
        weight[:, alive], hessian[np.ix_(alive, alive)], IntegerGrid(scale[alive], None, -7, 7)
    )
    assert np.array_equal(found.codes[:, alive], rest.codes)


def test_a_matrix_that_has_no_factor_is_damped_more_or_refused():
    x = np.random.default_rng(0).standard_normal((3, 12))  # rank 3 of 12
    assert factor(x.T @ x, 0.0, np.float64).damp > 0
    indefinite = x.T @ x - 0.02 * np.diagonal(x.T @ x).mean() * np.eye(12)
    np.fill_diagonal(indefinite, np.maximum(np.diagonal(indefinite), 1e-3))
    assert factor(indefinite, 0.01, np.float64).damp > 0.01
    with pytest.raises(SolveError, match="not positive definite"):
        factor(np.array([[1.0, 30.0], [30.0, 1.0]]), 0.01)
    with pytest.raises(SolveError, match="no sum of squares"):
        factor(np.diag([1.0, -1.0]), 0.01)
    with pytest.raises(SolveError, match="not finite"):
        factor(np.full((2, 2), np.nan), 0.01)


def test_outliers_stay_as_they_are_and_the_others_gain():
    weight, hessian, scale = case(5, 60, 5, samples=200)
    plain = solve(weight, hessian, IntegerGrid(scale, None, -7, 7))
    grid = KeepOutliers(IntegerGrid(scale, None, -7, 7), float(np.median(plain.loss)) / 5, (60, 5))
    found = solve(weight, hessian, grid)
    assert 0 < grid.kept.mean() < 0.9
    assert found.error < plain.error


def test_groups_are_fitted_when_their_turn_comes():
    weight, hessian, scale = case(4, 64, 6, samples=200)
    seen = []

    def fit(part, pivots):
        seen.append(part[::-1].copy())  # the first to be rounded stands last
        return np.abs(part).max(0) / 7, None

    groups = np.arange(64) // 16
    grid = IntegerGrid(scale.copy(), None, -7, 7, groups=groups, fit=fit)
    found = solve(weight, hessian, grid)
    assert len(seen) == 4
    assert np.abs(seen[0] - weight.T[:16]).max() == 0 < np.abs(seen[1] - weight.T[16:32]).max()
    assert np.allclose(found.values, (found.codes.T * grid.scale).T)


@pytest.mark.parametrize("name", list(TINY))
def test_it_lowers_the_error_of_the_layers_on_real_graphs(name):
    result = apply(tiny_graph(name), PLACED + "gptq{samples=16}", TINY[name].calibration(16))
    (note,) = result.report.steps[-1].notes
    share = float(note.split(": ")[1].split()[0])
    assert 0 < share < 0.95, note
    assert not any(n.op_type == "Encode" for n in result.graph.graph)


def test_a_stopped_run_ends_with_the_same_codes(tmp_path, monkeypatch):
    graph, data = tiny_graph("llama"), TINY["llama"].calibration(8)
    pipeline = PLACED + "gptq{samples=8}"
    whole = apply(graph, pipeline, data)
    real, count = gptq.solve_task, 0

    def stopped(*args):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(gptq, "solve_task", stopped)
    with pytest.raises(KeyboardInterrupt):
        apply(graph, pipeline, data, checkpoint=tmp_path / "half")
    assert [*tmp_path.iterdir()], "nothing was saved"
    resumed = apply(graph, pipeline, data, checkpoint=tmp_path / "half")
    assert ir.show(resumed.graph) == ir.show(whole.graph)
    assert count < 5 + len([*whole.report.steps[-1].sites])


def test_later_layers_see_the_rounded_earlier_ones():
    """Two layers: the second one's Hessian is that of the rounded first one's output."""
    text = """graph g(%x: f32[n,8]) -> %y {
      %a : f32[8,8] = const seed:1
      %h : f32[n,8] = MatMul(%x, %a)
      %b : f32[8,4] = const seed:2
      %y : f32[n,4] = MatMul(%h, %b)
    }"""
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((32, 8)).astype(np.float32)} for _ in range(4)]
    seen = []
    real = gptq.solve_task

    def watched(task, grams, *rest):
        seen.append(grams[0])
        return real(task, grams, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gptq, "solve_task", watched)
        result = passes.run(
            ir.parse(text), "place{w=i2@0x1*f32} | gptq{samples=128,batch=32}", data=data
        )
    x = np.concatenate([feed["x"] for feed in data]).astype(np.float64)
    codes, scale = (
        result.graph.graph.initializers[n].const_value.numpy() for n in ("a.codes.1", "a.scale")
    )
    h = x @ (codes.astype(np.float64) * scale)
    np.testing.assert_allclose(seen[0], x.T @ x, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(seen[1], h.T @ h, rtol=1e-4, atol=1e-2)


def test_elements_without_whole_steps_are_refused_in_words():
    pipeline = "as_float32 | clean | place{w=e2m1@0x1*f32} | gptq"
    with pytest.raises(PassError, match="solved on whole steps, and e2m1 has none"):
        apply(tiny_graph("mlp"), pipeline, TINY["mlp"].calibration(4))
