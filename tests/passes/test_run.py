"""The manager holds every pass to what it declares, and says clearly what went wrong."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import ir
from ir.errors import PassError, PipelineError, VerifyError
from ir.graph import BY
from ir.verify import Stage
from passes import Check, Effect, Pass, Pipeline, Stat
from passes.run import run
from passes.watch import Observer
from tests.helpers import CONVS, MLP, SMALL, Break, BreakQuietly, apply, feeds

W8A8 = "collect{[histogram moments]} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | clip | rtn"


@dataclass(frozen=True)
class Idle(Pass):
    """Touches nothing; class attributes are overridden by the tests."""

    name: ClassVar[str] = "idle"
    optional: ClassVar[bool] = True

    def run(self, graph, ctx):
        pass


@dataclass(frozen=True)
class Noisy(Pass):
    """Adds noise to a bias: the only randomness a pass has is ctx.rng."""

    name: ClassVar[str] = "noisy"
    effect: ClassVar[Effect] = Effect.LOSSY

    def run(self, graph, ctx):
        value = graph.graph.initializers["b1"]
        noise = ctx.rng.normal(size=16).astype(np.float32)
        ctx.edit.set_input(graph.graph.node("h"), 2, ctx.edit.constant(noise, "b1.noisy"))
        ctx.did(value)


# before any work ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("rtn", "step 1 'rtn' takes CODED, but the graph is FLOAT; move it before the step that "
         "codes the graph, or start from the float model"),
        (f"{W8A8} | place{{w=i8@0x1*f32}}", "step 5 'place' takes FLOAT, but step 4 leaves CODED; "
         "move it before the step that codes the graph, or start from the float model"),
        ("place{w=i8@0x1*f32} | clip", "step 2 'clip' needs 'histogram'; put collect{histogram} "
         "before step 2"),
        ("collect{histogram} | place{w=i8@0x1*f32} | rtn | correct_bias",
         "step 4 'correct_bias' needs 'moments'; put collect{moments} before step 4"),
        ("squeeze_me", "no pass or recipe is called 'squeeze_me'; did you mean "),
        ("w8a9", "no pass or recipe is called 'w8a9'; did you mean w8a8, w8a16"),
        ("clip{methud=mse}", "'clip' has no option 'methud'; its options are method, percent"),
        ("rtn{bits=4}", "'rtn' has no option 'bits'; it has no options"),
        ("clip{kl}", "clip.method: 'kl' is not valid; expected one of minmax, percentile, entropy, "
         "mse"),
        ("clip{percent=12}", "'clip{percent=12}': percent must lie in (50, 100]; "),
        ("clip{mse,method=mse}", "option 'method' of 'clip' is given twice; leave one of them out"),
        ("w8a8{clap=mse}", "recipe 'w8a8' has no option 'clap'; its options are w, a, clip, keep"),
        ("rtn |", "step 2: cannot read ''; write name or name{option=value,...}, steps separated "
         "by |"),
        ("place{w=i8}", "'i8' is not a QType; write element@block*scale[+zero]"),
    ],
)  # fmt: skip
def test_what_is_said_before_any_work(pipeline, message):
    watcher = Watcher()
    with pytest.raises(PipelineError) as caught:
        apply(MLP, pipeline, 1, watch=[watcher])
    assert str(caught.value).startswith(message)
    assert watcher.calls == []


def test_statistics_that_a_step_spoils_must_be_collected_again():
    @dataclass(frozen=True)
    class Shift(Idle):
        name: ClassVar[str] = "shift"
        spoils: ClassVar[frozenset[Stat]] = frozenset({Stat.HISTOGRAM})

    steps = Pipeline.parse(W8A8).steps
    with pytest.raises(PipelineError) as caught:
        apply(MLP, Pipeline(steps[0], Shift(), *steps[1:]), 1)
    assert str(caught.value) == (
        "step 4 'clip' needs 'histogram', dropped by step 2 'shift'; "
        "put collect{histogram} before step 4"
    )
    result = apply(MLP, Pipeline(steps[0], Shift()), 1)
    assert set(result.stats) == {Stat.MOMENTS}


def test_one_of_several_statistics():
    @dataclass(frozen=True)
    class Either(Idle):
        name: ClassVar[str] = "either"
        needs_one_of: ClassVar[frozenset[Stat]] = frozenset({Stat.ABSMAX, Stat.MINMAX})

    with pytest.raises(
        PipelineError, match=r"needs 'absmax or minmax'; put collect\{absmax\} before"
    ):
        apply(MLP, Pipeline(Either()))
    apply(MLP, Pipeline.parse("collect{minmax}") + Pipeline(Either()), 1)


def test_collecting_needs_data():
    with pytest.raises(PipelineError, match="step 1 'collect' needs calibration data and there is"):
        apply(MLP, "collect")


# what a step promises -----------------------------------------------------------------------------


def test_a_broken_fold_is_caught_and_the_first_value_named():
    with pytest.raises(VerifyError) as caught:
        apply(MLP, Pipeline.parse("drop_dead") + Pipeline(Break("w2")), 1)
    said = str(caught.value)
    assert said.startswith("step 2 'break': 'break' claims EXACT but moved output %y by ")
    assert "first at %m of MatMul 'm' (" in said
    assert said.endswith("run with crash_dir=... and report the folder")


def test_a_fold_that_is_wrong_by_little_is_caught_and_rounding_is_not():
    apply(MLP, Pipeline(Break("w2", by=1 + 1e-7)), 1)
    with pytest.raises(VerifyError, match="claims EXACT but moved output"):
        apply(MLP, Pipeline(Break("w2", by=1 + 1e-4)), 1)


def test_changes_behind_the_editors_back_are_compared_too():
    class Sly(Break):
        def run(self, graph, ctx):
            graph.graph.node("r").op_type = "Sigmoid"
            ctx.did(graph.graph.node("r"))

    with pytest.raises(VerifyError, match=r"claims EXACT .* first at %r of Sigmoid"):
        apply(MLP, Pipeline(Sly()), 1)


def test_notes_change_nothing():
    class Note(Break):
        effect: ClassVar[Effect] = Effect.NOTES

    with pytest.raises(VerifyError, match="claims NOTES but moved output %y"):
        apply(MLP, Pipeline(Note()), 1)

    class Annotate(Break):
        effect: ClassVar[Effect] = Effect.NOTES

        def run(self, graph, ctx):
            ctx.edit.note(graph.graph.node("h"), {"quant.seen": "yes"})
            ctx.did(graph.graph.node("h"))

    both = Pipeline(Annotate(), BreakQuietly("w1", 1.01))
    assert apply(MLP, both, 1).report.steps[1].sqnr["y"] == pytest.approx(40, abs=6)


def test_lossy_steps_report_decibels_per_output():
    text = MLP.replace("-> %y", "-> %y, %r")
    steps = apply(text, Pipeline(BreakQuietly("w2", 1.1)), 1).report.steps
    assert list(steps[0].sqnr) == ["y", "r"]
    assert steps[0].sqnr["r"] == np.inf
    assert 10 < steps[0].sqnr["y"] < 40
    assert steps[0].difference is None


def test_sqnr_is_measured_against_the_model_as_it_came_in():
    twice = Pipeline(BreakQuietly("w2", 2.0), BreakQuietly("w2.broken", 0.5))
    first, second = apply(MLP, twice, 1).report.steps
    assert first.sqnr["y"] < 20
    assert second.sqnr["y"] == np.inf


def test_the_declared_stage_must_be_reached():
    class Place(Break):
        effect: ClassVar[Effect] = Effect.LOSSY
        makes: ClassVar[Stage] = Stage.CODED

    with pytest.raises(VerifyError, match="step 1 'break': 'break' makes CODED but left FLOAT"):
        apply(MLP, Pipeline(Place()), 1)


def test_the_grammar_is_checked_after_every_step_unless_told_not_to():
    class Wreck(BreakQuietly):
        def run(self, graph, ctx):
            graph.graph.node("r").op_type = "Nonsense"
            ctx.did(graph.graph.node("r"))

    for check in (Check.VERIFY, Check.COMPARE):
        with pytest.raises(VerifyError, match="step 1 'break_quietly': op 'Nonsense' is not in"):
            apply(MLP, Pipeline(Wreck()), 1, check=check)
    result = apply(MLP, Pipeline(Wreck()), 1, check=Check.NONE)
    assert result.graph.graph.node("r").op_type == "Nonsense"


def test_no_check_compares_nothing():
    report = apply(MLP, Pipeline(Break()), 1, check=Check.NONE).report
    assert report.steps[0].difference is None
    assert apply(MLP, Pipeline(Break()), 1, check=Check.VERIFY).report.sqnr == {}


def test_exact_steps_in_a_row_are_compared_at_the_last_one():
    steps = Pipeline(Break("w1", 1.0), Break("w2", 1.0), BreakQuietly("w2.broken", 1.01))
    first, second, lossy = apply(MLP, steps, 1).report.steps
    assert (first.difference, second.difference) == (None, 0.0)
    assert first.notes == ["outputs compared together with those of step 2"]
    assert lossy.sqnr["y"] > 20
    each = apply(MLP, steps, 1, check=Check.EACH).report.steps
    assert [step.difference for step in each] == [0.0, 0.0, None]
    assert not each[0].notes


def test_zero_sites_is_an_error_with_the_reasons():
    with pytest.raises(PassError) as caught:
        apply(CONVS, "collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8,keep=[Conv]}", 1)
    assert str(caught.value) == (
        "step 2 'place': 'place' matched nothing in 6 nodes; every site was refused: "
        "kept float by 'Conv'"
    )
    with pytest.raises(PassError) as caught:
        apply("graph g(%x: f32[2]) -> %y { %y : f32[2] = Relu(%x) }", "place{w=i8@0x1*f32}")
    assert str(caught.value).endswith(
        "the graph holds no MatMul, Gemm or Conv with a constant weight of two or more axes"
    )


# what it leaves -----------------------------------------------------------------------------------


def test_the_callers_graph_is_untouched():
    graph = ir.parse(MLP)
    before = ir.show(graph)
    tensors = {k: v.const_value.numpy().copy() for k, v in graph.graph.initializers.items()}
    result = apply(graph, W8A8, 2)
    assert ir.show(graph) == before != ir.show(result.graph)
    for name, numbers in tensors.items():
        np.testing.assert_array_equal(graph.graph.initializers[name].const_value.numpy(), numbers)


def test_runs_are_deterministic_per_seed():
    noisy = Pipeline(Noisy()) + Pipeline.parse(W8A8)
    texts = [ir.show(apply(MLP, noisy, 2, seed=seed).graph) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_two_steps_draw_different_numbers():
    one = apply(MLP, Pipeline(Noisy()), 1).graph.graph
    two = apply(MLP, Pipeline(Idle(), Noisy()), 1).graph.graph
    assert (one.node("h").inputs[2].const_value.numpy()
            != two.node("h").inputs[2].const_value.numpy()).any()  # fmt: skip


def test_every_new_node_says_which_step_made_it():
    graph = ir.parse(MLP)
    known = {node.name for node in graph.graph}
    result = apply(graph, W8A8, 1)
    place = str(Pipeline.parse(W8A8).steps[1])
    made = [node for node in result.graph.graph if node.name not in known]
    assert len(made) == 6, "two Encodes and four Decodes; rtn took the weights' Encodes out"
    assert {node.metadata_props.get(BY) for node in made} == {place}
    assert all(BY not in n.metadata_props for n in result.graph.graph if n.name in known)


def test_float_graph_is_the_last_float_graph():
    result = apply(MLP, "drop_dead | " + W8A8, 1)
    assert ir.verify(result.float_graph, Stage.FLOAT) is None
    coded = Pipeline(BreakQuietly("w1")) + Pipeline.parse(W8A8)
    result = apply(MLP, coded, 1)
    assert "w1.broken" in result.float_graph.graph.initializers
    result = apply(MLP, Pipeline(BreakQuietly("w1")), 1)
    assert result.float_graph is result.graph


def test_a_coded_graph_goes_on_with_what_the_first_run_left():
    whole = apply(MLP, W8A8 + " | correct_bias", 2)
    part = apply(MLP, W8A8, 2)
    rest = apply(part.graph, "correct_bias", 2, stats=part.stats, float_graph=part.float_graph)
    # Provenance and names agree; the rest differs in nothing.
    assert ir.show(rest.graph) == ir.show(whole.graph)
    assert rest.report.sqnr == whole.report.sqnr
    with pytest.raises(PassError) as caught:
        apply(part.graph, "correct_bias", 2, stats=part.stats)
    assert str(caught.value) == (
        "step 1 'correct_bias': the float model is not known; give run(..., float_graph=) the "
        "model as it was"
    )


def test_the_report_tells_what_each_step_did():
    graph = ir.parse(MLP)
    result = apply(graph, W8A8, 1)
    collect, place, clip, rtn = result.report.steps
    assert collect.sites == ["%x", "%r"]
    assert place.sites == ["Gemm 'h'", "MatMul 'm'"]
    assert "%r: read by MatMul (MatMulInteger)" in place.notes
    assert (place.nodes_before, place.nodes_after, place.stage) == (4, 12, "CODED")
    assert rtn.sites == ["%w1", "%w2"]
    assert rtn.nodes_after == 10
    assert result.report.sqnr is rtn.sqnr
    assert rtn.sqnr["y"] > 25
    assert clip.changes > 0
    assert result.report.asdict()["steps"][1]["sites"] == place.sites
    assert result.pipeline == str(Pipeline.parse(W8A8))
    assert result.report.seconds > 0
    assert result.report.peak_bytes > 1e6


def test_without_data_promises_are_checked_on_drawn_inputs():
    with pytest.raises(VerifyError, match="claims EXACT"):
        apply(MLP, Pipeline(Break()))


def test_anything_capture_reads_can_be_run():
    import onnx_ir

    model = onnx_ir.to_proto(ir.parse(MLP))
    result = run(model, "place{w=i8@0x1*f32} | rtn", target=SMALL)
    assert result.report.steps[0].sites


# watch hooks --------------------------------------------------------------------------------------


class Watcher(Observer):
    def __init__(self):
        self.calls = []

    def before(self, number, step, graph):
        self.calls.append(("before", number, step.name))

    def after(self, number, step, graph, report):
        self.calls.append(("after", number, step.name))
        assert report.number == number
        assert report.seconds > 0

    def failed(self, number, step, graph, error):
        self.calls.append(("failed", number, step.name))


def test_hooks_are_called_around_every_step():
    one, two = Watcher(), Watcher()
    with pytest.raises(VerifyError):
        apply(MLP, Pipeline.parse("drop_dead") + Pipeline(Break()), 1, watch=[one, two])
    assert one.calls == two.calls == [
        ("before", 1, "drop_dead"), ("after", 1, "drop_dead"), ("before", 2, "break"),
        ("failed", 2, "break"),
    ]  # fmt: skip


def test_progress_is_told_of_the_walk():
    told = []
    apply(MLP, "collect", 3, progress=lambda *args: told.append(args))
    assert told[-1][:2] == ("calibrating", 3)


def test_feeds_that_do_not_fit_are_refused_before_the_first_step():
    watcher = Watcher()
    bad = [{"x": np.zeros((2, 9), np.float32)}]
    with pytest.raises(ir.PtqcError):
        apply(MLP, W8A8, bad, watch=[watcher])
    assert ("after", 1, "collect") not in watcher.calls


def test_probes_are_few_samples_of_the_first_batch():
    graph = ir.parse(MLP)
    big = feeds(graph, 1, size=50)
    from passes.probe import PROBES, probes

    found = probes(graph, big, 0)
    assert [a.shape for f in found for a in f.values()] == [(PROBES, 8)]
    np.testing.assert_array_equal(found[0]["x"], big[0]["x"][:PROBES])
    fixed = ir.parse(MLP.replace("[n,", "[50,"))
    assert probes(fixed, big, 0)[0]["x"].shape == (50, 8)
    with pytest.raises(ir.PtqcError, match="no batches"):
        probes(graph, [], 0)


def test_threads_are_set_for_the_run_only():
    seen = []

    class Look(Observer):
        def before(self, number, step, graph):
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    run(ir.parse(MLP) if isinstance(MLP, str) else MLP, "dedup", threads=before + 1, watch=[Look()])
    assert seen == [before + 1]
    assert torch.get_num_threads() == before
