"""A crash folder holds all that repeats a failure, in another process, word for word."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

import backends
import ir
from ir.errors import OutputError, PassError, VerifyError
from passes import Check, Pipeline, crash
from passes.__main__ import main
from passes.core import REGISTRY
from tests.helpers import MLP, SMALL, Break, BreakQuietly, apply, feeds

ROOT = Path(__file__).parents[2]
PLACE = "collect{[histogram moments]} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | clip | rtn"
COMMAND = """
import runpy, sys, backends
from passes.core import register
from tests.helpers import Break
backends.TARGETS["small"] = "tests.helpers"
register(Break)
runpy.run_module("passes", run_name="__main__", alter_sys=True)
"""
"""`python -m passes FOLDER`, for a target and a pass that only tests know."""


def python_m_passes(folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, str(folder)], capture_output=True, text=True, cwd=ROOT,
        env=environment, timeout=120,
    )  # fmt: skip


def with_a_nan() -> ir.Graph:
    """%w2 holds a NaN that only `place` minds: data never reaches it."""
    graph = ir.parse(MLP)
    value = graph.graph.initializers["w2"]
    numbers = value.const_value.numpy().copy()
    numbers[0, 0] = np.nan
    value.const_value = onnx_ir.tensor(numbers)
    return graph


def only_folder(parent: Path) -> Path:
    (folder,) = parent.iterdir()
    return folder


def test_the_guilty_one_of_several_exact_steps_is_blamed_in_a_run_and_in_its_folder(tmp_path):
    """The three are compared at once; only then one by one."""
    steps = Pipeline(Break("w1", 1.0), Break("w2", 1.5), Break("w2.broken", 1.0))
    with pytest.raises(VerifyError, match=r"step 2 'break': .*claims EXACT but moved output %y"):
        apply(MLP, steps, 1, crash_dir=tmp_path)
    folder = only_folder(tmp_path)
    assert folder.name == "ptqc-crash-02-break"
    rest = (folder / "pipeline.txt").read_text()
    assert rest == "break{weight=w2} | break{weight=w2.broken,by=1.0}\n"


def test_an_earlier_exact_step_is_blamed_for_what_a_later_one_cannot_do():
    class Refuse(Break):
        def run(self, graph, ctx):
            raise PassError("no way on")

    for by, error in ((1.5, VerifyError), (1.0, PassError)):
        steps = Pipeline(Break("w1", 1.0), Break("w2", by), Refuse())
        number = 2 if by == 1.5 else 3
        with pytest.raises(error, match=f"step {number} 'break'"):
            apply(MLP, steps, 1)


def test_another_process_repeats_a_refusal(tmp_path):
    graph = with_a_nan()
    with pytest.raises(PassError) as caught:
        apply(graph, "collect | place{w=i8@0x1*f32} | rtn", 2, crash_dir=tmp_path, seed=3)
    assert "step 2 'place': a weight is not finite (at %w2)" in str(caught.value)
    folder = only_folder(tmp_path)
    assert folder.name == "ptqc-crash-02-place"
    assert (folder / "pipeline.txt").read_text() == "place{w=i8@0x1*f32} | rtn\n"
    assert (folder / "graph.txt").read_text() == ir.show(graph)
    assert caught.value.__notes__ == [
        f"crash folder: {folder}; repeat with `python -m passes {folder}`"
    ]
    again = python_m_passes(folder)
    assert again.stderr == f"ptqc: error: {caught.value}\n"
    assert again.returncode == PassError.exit_code
    assert (folder / "error.txt").read_text() == f"{caught.value}\n"


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(backends.TARGETS, "small", "tests.helpers")
    monkeypatch.setitem(REGISTRY, "break", Break)


@pytest.mark.usefixtures("known")
def test_a_broken_fold_is_repeated(tmp_path, capsys):
    pipeline = Pipeline.parse("drop_dead") + Pipeline(Break("w2", 1.25))
    with pytest.raises(VerifyError) as caught:
        apply(MLP, pipeline, 2, crash_dir=tmp_path)
    assert main([str(only_folder(tmp_path))]) == VerifyError.exit_code
    assert capsys.readouterr().err == f"ptqc: error: {caught.value}\n"


@pytest.mark.usefixtures("known")
def test_a_step_on_codes_finds_its_statistics_and_its_float_model(tmp_path, monkeypatch, capsys):
    """correct_bias reads the moments and the float weights; here it is made to fail afterwards."""
    from passes.rounding.correct_bias import CorrectBias

    seen = []

    def failing(self, graph, ctx):
        original(self, graph, ctx)
        fixed = sorted(k for k in graph.graph.initializers if "corrected" in k)
        seen.append([graph.graph.initializers[k].const_value.numpy() for k in fixed])
        seen.append(ctx.rng.random())
        raise PassError(f"stopped with {fixed}")

    original = CorrectBias.run
    monkeypatch.setattr(CorrectBias, "run", failing)
    with pytest.raises(PassError, match=r"step 5 .*stopped with \['b1.corrected', 'b2.corr"):
        apply(MLP, PLACE + " | correct_bias", 2, crash_dir=tmp_path, seed=5)
    folder = only_folder(tmp_path)
    assert (folder / "float.onnx").is_file()
    assert main([str(folder)]) == PassError.exit_code
    assert "step 5 'correct_bias': stopped with" in capsys.readouterr().err
    for first, second in zip(seen[0], seen[2], strict=True):
        np.testing.assert_array_equal(first, second)
    assert seen[1] == seen[3], "the same randomness"


@pytest.mark.usefixtures("known")
def test_a_defect_shows_its_traceback_and_is_repeated(tmp_path, monkeypatch):
    def failing(self, graph, ctx):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Break, "run", failing)
    with pytest.raises(ZeroDivisionError):
        apply(MLP, Pipeline(Break()), 2, crash_dir=tmp_path)
    folder = only_folder(tmp_path)
    assert "ZeroDivisionError: a defect" in (folder / "error.txt").read_text()
    with pytest.raises(ZeroDivisionError, match="a defect"):
        main([str(folder)])


@pytest.mark.usefixtures("known")
def test_a_repaired_pass_says_so(tmp_path, monkeypatch, capsys):
    with pytest.raises(VerifyError):
        apply(MLP, Pipeline(Break()), 2, crash_dir=tmp_path)
    monkeypatch.setattr(Break, "run", BreakQuietly(by=1.0).run.__func__)
    monkeypatch.setattr(Break, "optional", True, raising=False)
    folder = only_folder(tmp_path)
    (folder / "pipeline.txt").write_text("break{by=1.0}\n")
    assert main([str(folder)]) == 0
    assert "the failure did not come back" in capsys.readouterr().out


def test_what_a_folder_holds_is_read_back(tmp_path):
    graph = ir.parse(MLP)
    result = apply(graph, PLACE, 2)
    state = crash.State(
        4, 7, SMALL.name, Check.VERIFY.name, result.stats, feeds(graph, 1), result.float_graph
    )
    rest = Pipeline.parse("rtn | correct_bias")
    folder = crash.save(tmp_path, result.graph, rest, PassError("x"), state)
    read, pipeline, again = crash.load(folder)
    assert ir.show(read) == ir.show(result.graph)
    assert pipeline == rest
    assert (again.number, again.seed, again.target, again.check) == (4, 7, "small", "VERIFY")
    assert ir.show(again.float_graph) == ir.show(result.float_graph)
    np.testing.assert_array_equal(again.probes[0]["x"], state.probes[0]["x"])
    assert {stat: set(values) for stat, values in again.stats.items()} == {
        stat: set(values) for stat, values in result.stats.items()
    }
    for stat, values in result.stats.items():
        for name, accumulator in values.items():
            for key, part in accumulator.state().items():
                np.testing.assert_array_equal(again.stats[stat][name].state()[key], part)


def test_odd_names_of_inputs_survive(tmp_path):
    text = 'graph g(%file: f32[2], %"a/b c": f32[2]) -> %y { %y : f32[2] = Add(%file, %"a/b c") }'
    graph = ir.parse(text)
    state = crash.State(1, 0, "small", "NONE", {}, feeds(graph, 1))
    folder = crash.save(tmp_path, graph, Pipeline.parse("dedup"), PassError("x"), state)
    assert list(crash.load(folder)[2].probes[0]) == ["file", "a/b c"]


def test_an_unwritable_place_does_not_hide_the_failure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VerifyError, match="claims EXACT") as caught:
        apply(MLP, Pipeline(Break()), 1, crash_dir=tmp_path / "file")
    assert caught.value.__notes__[0].startswith("no crash folder was written: cannot write")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(OutputError, match="is not a crash folder"):
        crash.load(tmp_path)


def test_no_folder_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VerifyError):
        apply(MLP, Pipeline(Break()), 1)
    assert not list(tmp_path.iterdir())
