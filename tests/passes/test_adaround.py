"""Learned roundings: degenerations, bounds, and the same result after a stop."""

import itertools

import numpy as np
import pytest
import torch

import ir
import passes
from ir import ops
from ir.graph import array
from passes.rounding import adaround
from passes.rounding.regionwise import sites
from passes.rounding.rtn import encodes, round_weight
from tests.helpers import MLP, TARGET, apply

CODED = "place{w=u4@4x1*f32+u4}"
HARD = "place{w=i2@8x1*f32}"


def data(count=8, rows=16, seed=0):
    """Rows whose channels move together: nearest codes are then far from the best."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(2, 8))
    return [{"x": (rng.normal(size=(rows, 2)) @ mixing).astype(np.float32)} for _ in range(count)]


def found_sites(pipeline):
    graph = apply(MLP, pipeline).graph
    return {s.key: s for s in sites(graph, lambda e, r: pytest.fail(r)).values()}.values(), graph


def codes(graph):
    return [
        array(n.inputs[0]).astype(np.int32) for n in graph.graph.all_nodes()
        if ops.is_op(n, "Decode")
    ]  # fmt: skip


def error(graph, teacher, feeds):
    from backends.torch import Executor

    y, t = Executor(graph), Executor(teacher)
    return float(np.mean([np.mean((y.run(f)["y"] - t.run(f)["y"]).numpy() ** 2) for f in feeds]))


@pytest.mark.parametrize("pipeline", [CODED, HARD, "place{w=i3@0x1*f32}", "place{w=i8@0*f32}"])
def test_the_start_is_the_weight_softly_and_its_nearest_code_hard(pipeline):
    found, graph = found_sites(pipeline)
    nearest = {}
    for encode in encodes(graph):
        parts = [array(v) for v in encode.inputs]
        zero = parts[2] if len(parts) > 2 else None
        nearest[id(encode)] = round_weight(parts[0], parts[1], zero, ops.qtype_of(encode))
    for site in found:
        v = adaround.logits(site)
        inside = (site.weight / site.scale + site.zero).clamp(*site.limits)
        expected = (inside - site.zero) * site.scale
        torch.testing.assert_close(adaround.soft(site, v), expected, atol=2e-5, rtol=0)
        hard = adaround.codes_of(site, v >= 0)
        np.testing.assert_array_equal(hard, nearest[id(site.encode)])


def test_a_half_goes_where_nearest_even_goes():
    site = next(iter(found_sites("place{w=i8@0*f32}")[0]))
    steps = torch.tensor([0.5, 1.5, -0.5, -1.5, 2.4999998, 2.5000002])
    made = adaround.Site(site.encode, ("w",), steps, torch.ones(6), torch.zeros(6), site.qtype)
    hard = adaround.codes_of(made, adaround.logits(made) >= 0)
    assert hard.tolist() == torch.round(steps).int().tolist() == [0, 2, 0, -2, 2, 3]


def test_the_regulariser_is_zero_exactly_when_all_is_decided():
    ends = {"w": torch.tensor([-9.0, 9.0, -4.0])}
    assert adaround.undecided(ends, 2.0) == 0
    assert adaround.undecided({"w": torch.zeros(2)}, 2.0) == 1
    slow = 1 - abs(2 * float(adaround.rectified(torch.tensor(0.7))) - 1) ** 4
    assert float(adaround.undecided({"w": torch.tensor([0.7])}, 4.0)) == pytest.approx(slow)


def test_the_exponent_sleeps_and_then_falls():
    found = [adaround.exponent(step, 100) for step in range(100)]
    assert found[:20] == [None] * 20
    assert found[20] == 20
    assert all(a > b for a, b in itertools.pairwise(found[20:]))
    assert 2 < found[-1] < 2.5


def test_without_steps_it_is_nearest():
    given = codes(apply(MLP, f"{CODED} | rtn").graph)
    result = apply(MLP, f"{CODED} | adaround{{epochs=0}}", data())
    for one, two in zip(given, codes(result.graph), strict=True):
        np.testing.assert_array_equal(one, two)
    reasons = [skip.reason for skip in result.report.steps[-1].skips]
    assert len(reasons) == 2
    assert all("held-out data: rounded to nearest" in reason for reason in reasons)


@pytest.mark.parametrize("options", ["", "{blocks=true}", "{drop=0.5}"])
def test_errs_less_on_unseen_data_and_moves_codes_by_one(options):
    teacher = ir.parse(MLP)
    given = apply(MLP, f"{HARD} | rtn").graph
    text = options.replace("}", ",samples=128,batch=16}") or "{samples=128,batch=16}"
    result = apply(MLP, f"{HARD} | adaround{text}", data())
    assert len(result.report.steps[-1].sites) == 2
    unseen = data(4, seed=0)[:0] + data(12)[8:]
    assert error(result.graph, teacher, unseen) < 0.8 * error(given, teacher, unseen)
    for one, two in zip(codes(given), codes(result.graph), strict=True):
        assert 0 < np.abs(one - two).max() <= 1


def test_learned_codes_come_near_the_best_of_all():
    """One output, five weights: all 32 roundings are tried."""
    text = """graph g(%x: f32[n,5]) -> %y {
      %w : f32[5,1] = const [0.4, -0.9, 0.38, 0.35, -0.2]
      %y : f32[n,1] = MatMul(%x, %w)
    }
    """
    rng = np.random.default_rng(3)
    feeds = [{"x": (rng.normal(size=(64, 1)) + 0.3 * rng.normal(size=(64, 5))).astype(np.float32)}
             for _ in range(4)]  # fmt: skip
    teacher = ir.parse(text)
    given = apply(text, "place{w=i2@0x1*f32} | rtn").graph
    learned = apply(text, "place{w=i2@0x1*f32} | adaround{samples=256,batch=64,epochs=150}", feeds)
    x = np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    w = teacher.graph.initializers["w"].const_value.numpy().astype(np.float64)
    down = np.floor(w / 0.9)
    tries = [
        np.mean((x @ (0.9 * (down + np.array(bits).reshape(-1, 1)) - w)) ** 2)
        for bits in np.ndindex(2, 2, 2, 2, 2)
    ]
    nearest, mine = error(given, teacher, feeds), error(learned.graph, teacher, feeds)
    assert mine < nearest
    assert sum(tried < 0.999 * mine for tried in tries) <= 2, (mine, nearest, sorted(tries)[:4])


def test_a_stopped_run_ends_with_the_same_codes(tmp_path, monkeypatch):
    pipeline = f"{HARD} | adaround{{samples=128,batch=16,epochs=10}}"
    whole = codes(apply(MLP, pipeline, data()).graph)
    graph, state = ir.parse(MLP), tmp_path / "state"
    real, calls = adaround.undecided, []

    def stopping(parameters, beta):
        calls.append(beta)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return real(parameters, beta)

    monkeypatch.setattr(adaround, "undecided", stopping)
    with pytest.raises(KeyboardInterrupt):
        passes.run(graph, pipeline, data=data(), target=TARGET, checkpoint=state)
    monkeypatch.setattr(adaround, "undecided", real)
    assert list(tmp_path.iterdir()), "the first region was not saved"
    again = passes.run(graph, pipeline, data=data(), target=TARGET, checkpoint=state).graph
    for one, two in zip(whole, codes(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert not list(tmp_path.iterdir())


def test_without_data_it_says_so():
    with pytest.raises(ir.errors.PassError, match="no data to learn from"):
        apply(MLP, f"{CODED} | adaround")


def test_drop_is_a_share():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        adaround.Adaround(drop=1.0)
