"""Feeds, result files, worker processes and the measuring script, on models of a few nodes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import cases, feeds, measure, peers, record, scaling, synthetic


def scale_model(path: Path, factor: float) -> Path:
    """y = factor * x for x f32[n, 4]."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy")
    node = helper.make_node("Mul", ["x", "f"], ["y"])
    factor_tensor = numpy_helper.from_array(np.float32([factor]), "f")
    graph = helper.make_graph([node], "scale", [x], [y], [factor_tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    items = [{"x": rng.standard_normal((i + 1, 4), np.float32)} for i in range(12)]
    feeds.save(tmp_path / "data.npz", items)
    return tmp_path / "data.npz"


def test_feeds_keep_their_order_and_shapes(data: Path) -> None:
    assert [feed["x"].shape for feed in feeds.load(data)] == [(i + 1, 4) for i in range(12)]


def test_measuring_tells_a_model_from_a_changed_one(tmp_path: Path, data: Path) -> None:
    one, changed = scale_model(tmp_path / "a.onnx", 1), scale_model(tmp_path / "b.onnx", 1.1)
    row = measure.measure(one, changed, feeds.load(data), "agreement")
    assert row["sqnr_db"] == pytest.approx(20, abs=0.01)  # an error of 0.1 x: 20 log10(1 / 0.1)
    assert row["cosine"] == 1
    assert row["agreement"] == 1
    assert row["size_ratio"] == 1
    assert 0.2 < float(str(row["latency_ratio"])) < 5


def test_size_counts_external_data(tmp_path: Path) -> None:
    path = scale_model(tmp_path / "a.onnx", 1)
    small = measure.size(path)
    model = onnx.load(path)
    big = numpy_helper.from_array(np.zeros(5000, np.float32), "big")
    model.graph.initializer.append(big)
    onnx.save(model, path, save_as_external_data=True, location="a.data", size_threshold=1024)
    assert measure.size(path) >= small + 20000 > path.stat().st_size


def test_a_worker_reports_the_cost_of_its_call_alone(tmp_path: Path, data: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import shutil, time\n"
        "from benchmarks.workers.protocol import main\n"
        "ballast = bytearray(50 << 20)\n"
        "def quantize(model, feeds, out, options):\n"
        "    assert len(feeds) == 12 and options == {'k': 1}\n"
        "    work = b'x' * (80 << 20)\n"
        "    end = time.process_time() + 0.2\n"
        "    while time.process_time() < end: pass\n"
        "    shutil.copy(model, out)\n"
        "main(quantize)\n"
    )
    model, out = scale_model(tmp_path / "a.onnx", 1), tmp_path / "out.onnx"
    cases.CACHE.mkdir(parents=True, exist_ok=True)
    cost = peers.script([sys.executable, worker, model, data, out, json.dumps({"k": 1})], 60)
    assert out.read_bytes() == model.read_bytes()
    assert 0.2 <= cost["cpu_s"] < 2
    assert 80 <= cost["delta_mb"] < 120
    assert cost["peak_mb"] > 130


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise KeyError('scale')", "KeyError: 'scale'"), ("import os; os._exit(7)", "exit code 7")],
)
def test_a_script_that_fails_says_why(code: str, reason: str) -> None:
    cases.CACHE.mkdir(parents=True, exist_ok=True)
    with pytest.raises(peers.Failed, match=reason):
        peers.script([sys.executable, "-c", code], 60)


def test_a_script_that_hangs_is_ended() -> None:
    cases.CACHE.mkdir(parents=True, exist_ok=True)
    with pytest.raises(peers.Failed, match="did not finish in 1 s"):
        peers.script([sys.executable, "-c", "import time; time.sleep(60)"], 1)


def test_results_replace_the_older_row_of_the_same_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    for model, value in [("b", 1), ("a", 2), ("b", 3)]:
        record.keep("family", {"model": model, "value": value}, ["model"])
    lines = (tmp_path / "results" / "family.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"model": "a", "value": 2},
        {"model": "b", "value": 3},
    ]


def test_synthetic_decoders_are_valid_and_of_the_size_asked_for() -> None:
    model = synthetic.decoder(3)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) == 3 * synthetic.NODES_PER_LAYER + 1
    assert synthetic.decoder(3) == model


def test_exponent_of_known_growth() -> None:
    assert scaling.exponent([10, 100, 1000], [2, 20, 200]) == pytest.approx(1)
    assert scaling.exponent([10, 100, 1000], [1, 100, 10000]) == pytest.approx(2)
