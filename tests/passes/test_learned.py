"""Learned transforms: what is trained is what is folded, starts are kept, stops leave no trace."""

import numpy as np
import pytest
import torch

import ir
import passes
from calib.replay import work_key
from calib.replay.ste import extremes
from ir.analysis.streams import streams
from ir.edit import Edit
from ir.errors import VerifyError
from ir.fold import fold_scale
from ir.graph import array, clone
from ir.qtype import QType
from passes.equivalent import learn_scales
from passes.equivalent.learn_scales import Scales, keys_of
from passes.equivalent.learned import Student
from passes.rounding.clip_weights import group_extremes

NET = """graph g(%x: f32[n,8]) -> %y {
  %g : f32[8] = const [1, 40, 0.5, 2, 1, 1, 20, 1]
  %b : f32[8] = const [0, 1, 0, 0, 0, -1, 0, 0]
  %h : f32[n,8] = LayerNormalization(%x, %g, %b) {axis=-1, epsilon=1e-05}
  %w : f32[8,6] = const seed:1
  %y : f32[n,6] = MatMul(%h, %w)
}
"""
PLACE = "place{w=i4@0x1*f32,a=i4@1x0*f32,dynamic=true,portable=true}"
TWO = NET.replace(
    "\n}\n",
    "\n"
    + """  %g2 : f32[6] = const [1, 9, 0.5, 2, 1, 30]
  %h2 : f32[n,6] = LayerNormalization(%y, %g2) {axis=-1, epsilon=1e-05}
  %w2 : f32[6,6] = const seed:2
  %z : f32[n,6] = MatMul(%h2, %w2)
}
""",
).replace("-> %y", "-> %z")
STEP = "learn_scales{a=i4@1x0*f32,samples=32,epochs=4}"


def data(count=8):
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(4, 8)).astype(np.float32)} for _ in range(count)]


def numbers(graph):
    return {name: array(v) for name, v in graph.graph.initializers.items()}


def run(graph=NET, step=STEP, **options):
    return passes.run(ir.parse(graph), step, data=data(), check=passes.Check.EACH, **options)


def sqnr(graph, step=""):
    result = passes.run(ir.parse(graph), f"{step}{PLACE} | rtn", data=data())
    before, after = (passes.evaluate.outputs_of(g, data()) for g in (ir.parse(graph), result.graph))
    return passes.evaluate.mean_db(passes.evaluate.sqnr(before, after))


def test_what_is_trained_is_what_is_folded():
    graph = ir.parse(NET)
    (stream,) = [s for s in streams(graph) if not s.blocked]
    student = Student.of(graph)
    student.hold(keys_of(stream))
    s = np.exp(np.random.default_rng(0).normal(size=8)).astype(np.float32)
    maps = Scales([stream], student, {}, 0.5)
    found = maps.constants({"scale/0": torch.from_numpy(np.log(s))})
    other = clone(graph)
    edit = Edit(other)
    (same,) = [s for s in streams(other) if not s.blocked]
    fold_scale(same, s.astype(np.float64), edit)
    nodes = {node.name: node for node in other.graph}
    assert len(found) == 3
    for (name, index), tensor in found.items():
        np.testing.assert_allclose(tensor.numpy(), array(nodes[name].inputs[index]), rtol=1e-5)


def test_learned_factors_help_what_is_rounded_so():
    assert sqnr(NET, f"{STEP} | ") > sqnr(NET) + 3


def test_the_start_is_kept_where_training_does_not_help():
    result = run(step="learn_scales{w=none,a=none,epochs=2}")
    (step,) = result.report.steps
    assert not step.sites
    assert any("nothing learned lowers" in skip.reason for skip in step.skips)
    np.testing.assert_equal(numbers(result.graph), numbers(ir.parse(NET)))


@pytest.mark.parametrize(("graph", "stop"), [(NET, 7), (TWO, 31)])
def test_a_stopped_run_ends_as_one_that_was_not(tmp_path, monkeypatch, graph, stop):
    whole = numbers(run(graph).graph)
    assert not set(whole) & {"g", "g2"}, "every region learned"
    from calib.replay.loop import _Walk

    advance, steps = _Walk.advance, []

    def stopped(walk):
        advance(walk)
        steps.append(walk.step)
        if len(steps) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Walk, "advance", stopped)
    monkeypatch.setattr("calib.replay.saved.Saved.hold", _hold_and_save)
    with pytest.raises(KeyboardInterrupt):
        run(graph, checkpoint=tmp_path / "state")
    assert list(tmp_path.iterdir())
    steps.clear()
    monkeypatch.setattr(_Walk, "advance", lambda walk: (advance(walk), steps.append(walk.step)))
    np.testing.assert_equal(numbers(run(graph, checkpoint=tmp_path / "state").graph), whole)
    assert steps[0] == 7, "the torn step is done again, and no step before it"
    assert not list(tmp_path.iterdir())


def _hold_and_save(saved, region, state):
    saved.current = {"region": region, **state}
    saved.save()


def test_a_broken_fold_is_caught(monkeypatch):
    def broken(stream, s, edit):
        fold_scale(stream, s, edit)
        port = stream.readers[0]
        edit.set_input(port.node, 1, edit.constant(2 * array(port.node.inputs[1]), "twice"))

    monkeypatch.setattr(learn_scales, "fold_scale", broken)
    with pytest.raises(VerifyError):
        run()


def test_a_checkpoint_belongs_to_the_numbers_of_its_weights():
    one, other = ir.parse(NET), ir.parse(NET.replace("seed:1", "seed:2"))
    assert work_key(one, data(), "o", 0) == work_key(ir.parse(NET), data(), "o", 0)
    keys = {work_key(one, data(), "o", 0), work_key(other, data(), "o", 0),
            work_key(one, data(7), "o", 0), work_key(one, data(), "p", 0),
            work_key(one, data(), "o", 1)}  # fmt: skip
    assert len(keys) == 5


@pytest.mark.parametrize("text", ["i4@4x1*f32", "i8@0*f32", "i4@0x1*f32", "i2@3x2*f32"])
def test_extremes_are_those_of_numpy(text):
    qtype, x = QType.parse(text), np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    for mine, theirs in zip(
        extremes(torch.from_numpy(x), qtype), group_extremes(x, qtype), strict=True
    ):
        np.testing.assert_array_equal(mine.numpy(), theirs)
