"""Every command does what its help says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import backends
import ir
from calib import metrics
from passes import command, registry
from passes.command.explain import facts
from passes.command.screen import plain

ROOT = Path(__file__).parents[2]
QUANTIZE = ["quantize", "-r", "w8a8"]


def quantized(ptqc, files, *more: object, name: str = "conv"):
    arguments = [*QUANTIZE, files[f"{name}.onnx"], "--calib", files[f"{name}.npz"]]
    return ptqc(*arguments, "-o", files["out"], *more)


class TestQuantize:
    def test_writes_an_artifact_and_reports_what_it_executes_to(self, ptqc, files) -> None:
        ran = quantized(ptqc, files, "--json", files["facts.json"])
        assert ran.status == 0, ran.err
        found = json.loads(Path(files["facts.json"]).read_text())
        feeds = dict(np.load(files["conv.npz"]))
        wanted = onnxruntime.InferenceSession(files["conv.onnx"]).run(None, feeds)[0]
        executed = backends.load(files["out"]).run(feeds)["linear"]
        figures = found["accuracy"]["outputs"]["linear"]
        assert figures["sqnr_db"] == pytest.approx(metrics.sqnr_db(wanted, executed), abs=0.5)
        assert figures["sqnr_db"] > 30
        assert f"{figures['sqnr_db']:.1f} dB" in ran.out
        assert found["accuracy"]["measured_on"] == "calibration data"
        assert "8 samples of calibration data, executed by ort" in ran.out
        assert found["layers"]["quantized"] + len(found["layers"]["refused"]) == 4
        assert found["size"]["float_bytes"] == Path(files["conv.onnx"]).stat().st_size
        assert found["size"]["bytes"] == Path(files["out"], "model.onnx").stat().st_size
        assert found["latency"]["ratio"] == pytest.approx(
            found["latency"]["ms"] / found["latency"]["float_ms"]
        )
        names = [step["step"].partition("{")[0] for step in found["steps"]]
        assert names.index("collect") < names.index("place") < names.index("rtn")
        assert found["peak_bytes"] > 50e6

    def test_says_when_the_figures_are_of_held_out_data(self, ptqc, files) -> None:
        ran = quantized(ptqc, files, "--eval", files["conv.npz"])
        assert "samples of held-out data" in ran.out

    def test_layers_without_a_kernel_are_said_to_run_in_function_bodies(self, ptqc, files) -> None:
        calibrated = ["--calib", files["mlp.npz"], "-o", files["out"]]
        ran = ptqc("quantize", files["mlp.onnx"], "-r", "w4a4", *calibrated)
        assert ran.status == 0, ran.err
        assert " layers quantized: 3 as function body" in ran.out
        assert "every code is rounded as told, computed in float, not faster" in ran.out
        rows = json.loads(Path(files["out"], "manifest.json").read_text())["kernels"]
        assert [row["kernel"] for row in rows] == ["function body"] * 3
        assert all("not i4@1x0*f32" in row["reason"] for row in rows)
        plain = ptqc("quantize", files["mlp.onnx"], "-r", "w8a8", *calibrated)
        assert plain.status == 0
        assert "function body" not in plain.out

    def test_without_data_the_figures_are_of_random_inputs_with_a_warning(
        self, ptqc, files
    ) -> None:
        ran = ptqc("quantize", files["mlp.onnx"], "-r", "w8a16", "-o", files["out"])
        assert ran.status == 0
        assert "random inputs" in ran.out
        assert "ptqc: warning: errors were measured on random inputs" in ran.err
        assert "warning" not in ran.out

    def test_json_to_stdout_leaves_nothing_else_there(self, ptqc, files) -> None:
        ran = quantized(ptqc, files, "--json", "-")
        assert json.loads(ran.out)["recipe"] == "w8a8"

    def test_keep_and_set_reach_the_recipe(self, ptqc, files) -> None:
        ran = quantized(ptqc, files, "--keep", "last", "--keep", "value:conv2d_2",
                        "--set", "clip=minmax", "--json", "-")  # fmt: skip
        found = json.loads(ran.out)
        reasons = [row["reason"] for row in found["layers"]["refused"]]
        assert {"kept float by 'last'", "kept float by 'value:conv2d_2'"} <= set(reasons)
        assert "clip{method=minmax}" in found["pipeline"]

    def test_a_pipeline_text_is_a_recipe(self, ptqc, files) -> None:
        text = "collect{minmax} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn"
        ran = ptqc("quantize", files["mlp.onnx"], "-r", text, "--calib", files["mlp.npz"],
                   "-o", files["out"], "--json", "-")  # fmt: skip
        assert json.loads(ran.out)["pipeline"].startswith("collect{stats=[minmax]} | place")

    def test_same_seed_same_bytes(self, ptqc, files) -> None:
        quantized(ptqc, files)
        first = Path(files["out"], "model.onnx").read_bytes()
        quantized(ptqc, files)
        assert Path(files["out"], "model.onnx").read_bytes() == first

    def test_a_model_that_is_coded_already(self, ptqc, files) -> None:
        import passes
        from tests.helpers import tiny_graph

        coded = passes.run(tiny_graph("mlp"), "place{w=i8@0x1*f32}").graph
        ir.save(coded, files["coded.onnx"])
        ran = ptqc("quantize", files["coded.onnx"], "-r", "rtn", "-o", files["out"],
                   "--html", files["r.html"], "--json", files["facts.json"])  # fmt: skip
        assert ran.status == 0, ran.err
        assert json.loads(Path(files["facts.json"]).read_text())["layers"]["quantized"] == 3

    def test_threads_are_those_of_torch_and_are_put_back(self, ptqc, files, monkeypatch) -> None:
        import torch

        asked = []
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        monkeypatch.setattr(torch, "set_num_threads", asked.append)
        assert quantized(ptqc, files, "--threads", 3).status == 0
        assert asked[0] == 3
        assert asked[-1] == 7
        assert ptqc("quantize", "m", "-r", "w8a8", "-o", "o", "--threads", 0).status != 0

    def test_samples_are_a_limit(self, ptqc, files) -> None:
        found = json.loads(quantized(ptqc, files, "--samples", 3, "--json", "-").out)
        assert found["accuracy"]["samples"] == 3


class TestCompare:
    def test_worst_value_first_and_what_to_keep(self, ptqc, files) -> None:
        quantized(ptqc, files)
        found = json.loads(ptqc("compare", files["conv.onnx"], files["out"], "--data",
                                files["conv.npz"], "--win-back", 9, "--json", "-").out)  # fmt: skip
        db = [float(row["sqnr_db"]) for row in found["values"]]
        assert db == sorted(db)
        assert {"relu6", "relu", "linear"} <= {row["value"] for row in found["values"]}
        best = found["win_back"][0]
        assert best["gain_db"] > 0.3
        ran = quantized(ptqc, files, "--keep", best["keep"], "--json", "-")
        now = json.loads(ran.out)["accuracy"]["outputs"]["linear"]["sqnr_db"]
        before = found["outputs_executed"]["linear"]["sqnr_db"]
        assert now - before == pytest.approx(best["gain_db"], abs=max(1.5, best["gain_db"] / 2))

    def test_shows_the_option_to_type(self, ptqc, files) -> None:
        quantized(ptqc, files, name="mlp")
        ran = ptqc("compare", files["mlp.onnx"], files["out"], "--data", files["mlp.npz"],
                   "--win-back", 1)  # fmt: skip
        assert ran.status == 0, ran.err
        assert re.search(r"--keep 'value:linear(_\d)?'", ran.out)

    def test_a_model_compared_with_itself_is_identical(self, ptqc, files) -> None:
        ran = ptqc("compare", files["mlp.onnx"], files["mlp.onnx"], "--data", files["mlp.npz"],
                   "--json", "-")  # fmt: skip
        found = json.loads(ran.out)
        assert {row["sqnr_db"] for row in found["values"]} == {"inf"}


class TestInspect:
    def test_summary(self, ptqc, files) -> None:
        found = json.loads(ptqc("inspect", files["conv.onnx"], "--json", "-").out)
        assert found["ops"]["Conv"] == 3
        assert found["blocks"] == {"residual": 1}
        assert found["linear_layers"] == 4
        assert found["weights"] == pytest.approx(1052, abs=10)

    def test_text_form_reads_back(self, ptqc, files) -> None:
        text = ptqc("inspect", files["mlp.onnx"], "--text").out
        graph = ir.capture(files["mlp.onnx"])
        assert text == ir.show(graph)
        assert ir.show(ir.parse(text, tensors=ir.text.store(graph))) == text

    def test_cost_needs_the_open_dimensions(self, ptqc, files) -> None:
        graph = ir.capture(files["mlp.onnx"])
        (symbol,) = {str(d.value) for v in graph.graph.inputs for d in v.shape[:1]}
        ran = ptqc("inspect", files["mlp.onnx"], "--cost")
        assert ran.status == 7
        assert f"--dims {symbol}=1" in ran.err
        ran = ptqc("inspect", files["mlp.onnx"], "--cost", "--dims", f"{symbol}=2", "--json", "-")
        assert json.loads(ran.out)["cost"]["macs"] == 2 * (16 * 64 + 64 * 32 + 32 * 8)


def test_bench_measures_both(ptqc, files) -> None:
    quantized(ptqc, files)
    ran = ptqc(
        "bench", files["out"], "--against", files["conv.onnx"], "--repeats", 3, "--json", "-"
    )
    models = json.loads(ran.out)["models"]
    assert [row["model"] for row in models] == [files["conv.onnx"], files["out"]]
    assert models[0]["ratio"] == 1
    assert models[1]["ratio"] == pytest.approx(models[1]["ms"] / models[0]["ms"])
    assert models[1]["bytes"] == Path(files["out"], "model.onnx").stat().st_size


class TestWords:
    def test_recipes_lists_every_recipe(self, ptqc) -> None:
        ran = ptqc("recipes", "--json", "-")
        assert [row["name"] for row in json.loads(ran.out)] == list(registry.recipes())
        shown = ptqc("recipes").out
        assert all(name in shown for name in registry.recipes())

    @pytest.mark.parametrize("name", sorted(registry.passes()))
    def test_explains_every_pass(self, ptqc, name: str) -> None:
        shown = " ".join(ptqc("explain", name).out.split())
        told = facts(registry.passes()[name])
        assert told["summary"] in shown
        assert " ".join(told["sections"]["rewrite"].split()) in shown
        for option in told["options"]:
            assert option["name"] in shown

    def test_explains_a_recipe_step_by_step(self, ptqc) -> None:
        found = json.loads(ptqc("explain", "w8a16", "--json", "-").out)
        assert [step["name"] for step in found["steps"]][-2:] == ["place", "rtn"]

    def test_explain_alone_lists_the_passes(self, ptqc) -> None:
        assert all(name in ptqc("explain").out for name in registry.passes())

    @pytest.mark.parametrize("name", command.NAMES)
    def test_help_teaches_by_example(self, ptqc, name: str) -> None:
        from passes.cli import build_parser

        ran = ptqc(name, "--help")
        assert ran.status == 0
        example = ran.out.partition("example:")[2].replace("\\\n", " ")
        lines = [line.strip() for line in example.splitlines() if line.strip()]
        assert lines
        for line in lines:
            assert build_parser().parse_args(shlex.split(line)[1:]).module.__name__.endswith(name)

    def test_defaults_are_shown(self, ptqc) -> None:
        shown = " ".join(ptqc("quantize", "--help").out.split())
        assert "(default: 128)" in shown
        assert "(default: compare)" in shown

    def test_help_does_not_wait_for_torch(self) -> None:
        code = (
            "import sys; from passes.cli import main; "
            "main(['--help']); print('torch' in sys.modules)"
        )
        ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert ran.stdout.rstrip().endswith("False")
        assert all(name in ran.stdout for name in command.NAMES)

    def test_python_m_passes_is_the_command(self) -> None:
        ran = subprocess.run([sys.executable, "-m", "passes", "--version"], cwd=ROOT,
                             capture_output=True, text=True)  # fmt: skip
        assert ran.returncode == 0
        assert ran.stdout.startswith("ptqc ")


def test_json_says_numbers_that_are_not_finite_as_text() -> None:
    found = plain({"a": float("inf"), "b": [float("nan"), np.float32(1.5)], "c": (Path("x"), None)})
    assert found == {"a": "inf", "b": ["nan", 1.5], "c": ["x", None]}
