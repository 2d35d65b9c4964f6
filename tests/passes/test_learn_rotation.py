"""learn_rotation: the manifold, the loss, what it learns, exact folds, and a run that is killed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ir
import passes
from backends.torch import Executor
from calib.replay import top_divergence
from calib.replay.stiefel import RiemannianAdam, cayley, nearest_orthogonal, tangent
from ir.edit import Edit
from ir.errors import PassError, VerifyError
from ir.formats import integer
from ir.qtype import QType
from passes.equivalent import learn_rotation
from passes.equivalent.rotate import random_orthogonal
from passes.equivalent.turned import Options, Student, rounded, turnable
from passes.evaluate import difference, outputs_of
from passes.rounding.clip_weights import group_extremes
from passes.rounding.rtn import round_weight
from tests.helpers import TINY, apply, tiny_graph

TEXT = """graph g(%ids: i64[n,6]) -> %y {
  %e : f32[20,16] = const seed:1
  %x : f32[n,6,16] = Gather(%e, %ids) {axis=0}
  %one : f32[16] = const [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]
  %h : f32[n,6,16] = RMSNormalization(%x, %one) {axis=-1}
  %wq : f32[16,8] = const seed:2
  %q : f32[n,6,8] = MatMul(%h, %wq)
  %wk : f32[16,8] = const seed:3
  %k : f32[n,6,8] = MatMul(%h, %wk)
  %wv : f32[16,8] = const seed:4
  %v : f32[n,6,8] = MatMul(%h, %wv)
  %kt : f32[n,8,6] = Transpose(%k) {perm=[0, 2, 1]}
  %l : f32[n,6,6] = MatMul(%q, %kt)
  %p : f32[n,6,6] = Softmax(%l) {axis=-1}
  %a : f32[n,6,8] = MatMul(%p, %v)
  %wo : f32[8,16] = const seed:5
  %o : f32[n,6,16] = MatMul(%a, %wo)
  %s : f32[n,6,16] = Add(%x, %o)
  %g : f32[n,6,16] = RMSNormalization(%s, %one) {axis=-1}
  %head : f32[16,20] = const seed:6
  %y : f32[n,6,20] = MatMul(%g, %head)
}"""


def planted(size: float = 40.0):
    """A decoder whose stream has one outlying channel, in the table, and tokens to learn from."""
    graph = ir.parse(TEXT)
    edit = Edit(graph)
    node = next(n for n in graph.graph if n.op_type == "Gather")
    table = node.inputs[0].const_value.numpy().copy()
    table[:, 3] = size
    edit.set_input(node, 0, edit.constant(table, "planted"))
    edit.finish()
    rng = np.random.default_rng(0)
    return graph, [{"ids": rng.integers(0, 20, (2, 6))} for _ in range(8)]


OUT = tiny_graph("llama").graph.outputs[0].name
LEARN = "learn_rotation{steps=%d,batch=2%s}"


@given(st.integers(2, 9), st.floats(0.01, 3.0), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_a_step_of_any_length_stays_orthogonal(size, length, seed):
    rng = np.random.default_rng(seed)
    matrix = torch.from_numpy(random_orthogonal(size, rng))
    slope = tangent(matrix, torch.from_numpy(rng.standard_normal((size, size))))
    moved = cayley(matrix, length * slope)
    assert torch.allclose(slope, -slope.T)
    assert (moved.T @ moved - torch.eye(size, dtype=moved.dtype)).abs().max() < 1e-12 * 10**3
    near = cayley(matrix, 1e-6 * slope) - (matrix - 1e-6 * matrix @ slope)
    assert near.abs().max() < 1e-9


def test_adam_finds_a_rotation_and_turns_by_its_rate():
    rng = np.random.default_rng(0)
    wanted = random_orthogonal(6, rng)
    wanted[:, 0] *= np.sign(np.linalg.det(wanted))  # of the component that the identity lies in
    matrix = torch.eye(6, dtype=torch.float64, requires_grad=True)
    adam, target = RiemannianAdam({"r": matrix}), torch.from_numpy(wanted)
    for step in range(300):
        matrix.grad = None
        (matrix - target).square().sum().backward()
        before = matrix.detach().clone()
        adam.step(0.05)
        if not step:
            turned = (matrix.detach() - before).square().sum(0).mean().sqrt()
            assert 0.049 < turned < 0.051  # radians, on average over the channels
    assert (matrix.detach() - target).abs().max() < 0.05
    assert np.abs(matrix.detach().numpy().T @ matrix.detach().numpy() - np.eye(6)).max() < 1e-10


def test_polar_repair_is_orthogonal_and_leaves_what_is():
    rng = np.random.default_rng(0)
    q = random_orthogonal(7, rng)
    assert np.abs(nearest_orthogonal(q) - q).max() < 1e-12
    bent = nearest_orthogonal(q + 1e-3 * rng.standard_normal((7, 7)))
    assert np.abs(bent.T @ bent - np.eye(7)).max() < 1e-12
    assert 0 < np.abs(bent - q).max() < 1e-2


@given(st.integers(1, 8), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_divergence_of_the_likeliest_is_one(top, seed):
    z, y = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(seed)).double()
    found = top_divergence(y, z, None, top).item()
    p, q = torch.softmax(z, -1), torch.softmax(y, -1)
    whole, slow = (p * (p / q).log()).sum(-1).mean().item(), 0.0
    for row, (a, b) in enumerate(zip(p, q, strict=True)):
        ids = sorted(range(6), key=lambda i: -z[row, i].item())[:top]
        slow += sum(float(a[i] * (a[i] / b[i]).log()) for i in ids) / 5
        rest = [float(1 - x[ids].sum()) for x in (a, b)]
        slow += rest[0] * np.log(rest[0] / rest[1]) / 5 if top < 6 else 0.0
    assert found == pytest.approx(slow, abs=1e-9)
    assert -1e-9 <= found <= whole + 1e-9
    assert top_divergence(z, z, None, top).item() == pytest.approx(0, abs=1e-12)


def test_rounding_in_torch_is_that_of_the_formats():
    weight = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32)
    for text in ("i4@0x1*f32", "u4@4x1*f32+u4", "i8@5x1*f32", "i8@0*f32"):
        qtype = QType.parse(text)
        scale, zero = integer.scale_and_zero(*group_extremes(weight, qtype), qtype)
        codes = round_weight(weight, scale, zero, qtype)
        slow = integer.decode(codes, scale, zero, qtype)
        assert np.abs(rounded(torch.from_numpy(weight), qtype).numpy() - slow).max() < 1e-6, text


def test_the_student_computes_the_turned_model_and_gradients_reach_every_parameter():
    """Unrounded, any rotation and scale leave its outputs as they were."""
    graph = tiny_graph("llama")
    graph = passes.run(graph, "clean | fold_norm").graph
    student = Student(graph, Options(True, True, 0, True, None, None, ()))
    assert len(student.turns) == 3
    assert len(student.scales) >= 6
    rng = np.random.default_rng(0)
    parameters = {
        **{n: torch.from_numpy(random_orthogonal(s, rng)) for n, s in student.turns.items()},
        **{n: torch.from_numpy(rng.uniform(-0.5, 0.5, s)) for n, s in student.scales.items()},
    }
    feed = TINY["llama"].evaluation(1)[0]
    wanted = Executor(graph).run(feed)[OUT]
    found = student.executor.run(feed, params=student.weights(parameters))[OUT]
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()
    student = Student(graph, Options(True, True, 0, True, QType.parse("u4@1x0*f32+u4"), None, ()))
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    out = student.executor.run(feed, params=student.weights(parameters))[OUT]
    (out - wanted).square().mean().backward()
    assert all(t.grad is not None and t.grad.abs().max() > 0 for t in parameters.values())


@pytest.mark.parametrize("extra", ["", ",scales=true", ",w=i4@0x1*f32", ",top=5"])
def test_learning_lowers_the_held_out_loss_and_changes_nothing_else(extra):
    graph, data = planted()
    result = apply(graph, LEARN % (40, extra), data)
    (note,) = result.report.steps[0].notes
    unturned, drawn = (
        float(w.split()[0]) for w in note.removeprefix("held-out loss ").split(",")[:2]
    )
    learned = float(note.split("at first, ")[1].split()[0])
    assert learned < 0.8 * min(unturned, drawn), note
    assert result.report.steps[0].difference <= 1e-5
    fresh = [{"ids": np.random.default_rng(9).integers(0, 20, (3, 6))}]
    assert difference(outputs_of(graph, fresh), outputs_of(result.graph, fresh)).relative < 1e-5


def test_the_fold_is_exact_in_double_precision():
    """1e-10 where weights are float64, so that only the matrices can be at fault."""
    text = TEXT.replace("f32", "f64").replace("{axis=-1}", "{axis=-1, stash_type=11}")
    text = text.replace(
        "%p : f64[n,6,6] = Softmax(%l) {axis=-1, stash_type=11}",
        "%p : f64[n,6,6] = Softmax(%l) {axis=-1}",
    )
    graph = ir.parse(text)
    streams = [
        s for s, no in turnable(graph, Options(True, True, 0, False, None, None, ())) if not no
    ]
    rng = np.random.default_rng(0)
    learned = {
        f"turn/{i}": random_orthogonal(s.size, rng) + 1e-4 * rng.standard_normal((s.size,) * 2)
        for i, s in enumerate(streams)
    }
    feed = [{"ids": rng.integers(0, 20, (3, 6))}]
    before = outputs_of(graph, feed)

    class Seen:
        edit = Edit(graph)
        did = staticmethod(lambda site: None)

    learn_rotation._turn(streams, learned, Seen)
    Seen.edit.finish()
    assert len(streams) == 2
    assert difference(before, outputs_of(graph, feed)).relative < 1e-10


def test_a_matrix_that_is_not_orthogonal_is_caught(monkeypatch):
    graph, data = planted()
    monkeypatch.setattr(learn_rotation, "nearest_orthogonal", lambda m: m * 1.001)
    with pytest.raises(VerifyError, match="moved output"):
        apply(graph, LEARN % (2, ",heads=false"), data)


def test_a_killed_run_ends_as_one_that_was_not(tmp_path, monkeypatch):
    graph, data = planted()
    pipeline = LEARN % (12, ",scales=true")
    whole = apply(graph, pipeline, data)
    advance, count = learn_rotation.Learning._advance, 0

    def killed(self):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        advance(self)

    real = learn_rotation.Saved.hold

    def always(self, region, state):
        real(self, region, state)
        self.save()

    monkeypatch.setattr(learn_rotation.Saved, "hold", always)
    monkeypatch.setattr(learn_rotation.Learning, "_advance", killed)
    with pytest.raises(KeyboardInterrupt):
        apply(graph, pipeline, data, checkpoint=tmp_path / "half")
    assert [*tmp_path.iterdir()], "nothing was saved"
    monkeypatch.setattr(learn_rotation.Learning, "_advance", advance)
    resumed = apply(graph, pipeline, data, checkpoint=tmp_path / "half")
    assert count == 6
    assert ir.show(resumed.graph) == ir.show(whole.graph)
    assert resumed.report.steps[0].notes == whole.report.steps[0].notes


def test_a_loss_that_is_not_finite_is_an_error():
    graph, data = planted(np.inf)
    with pytest.raises(PassError, match="loss is nan"):
        apply(graph, LEARN % (2, ""), data)
