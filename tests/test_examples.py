"""Every example runs, and says what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backends
import ir
from examples import demo, deploy, export_torch
from ir.errors import DataError
from tests.helpers import TINY, tiny_graph

ROOT = Path(__file__).parent.parent


def test_deploy(tmp_path: Path, capsys) -> None:
    ir.save(tiny_graph("conv"), tmp_path / "model.onnx")
    images = np.concatenate([feed["image"] for feed in TINY["conv"].calibration(8)])
    np.save(tmp_path / "images.npy", images)
    found = deploy.main(
        *map(str, (tmp_path / "model.onnx", tmp_path / "images.npy", tmp_path / "out"))
    )
    assert 30 < found["linear"] < 80
    assert "rtn: " in capsys.readouterr().out


def test_export_torch(tmp_path: Path, capsys) -> None:
    found = export_torch.main(str(tmp_path / "out"))
    assert min(found.values()) > 25
    said = capsys.readouterr().out
    assert "graph main" in said
    share = float(said.rpartition("same class for ")[2].partition("%")[0])
    assert share >= 95
    assert backends.load(tmp_path / "out").manifest.pipeline


def test_examples_run_as_programs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.export_torch", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "model.onnx").is_file()


class TestDemo:
    def test_one_row_on_a_tiny_model(self, tmp_path: Path) -> None:
        row = demo.quantize(TINY["conv"], "tiny", "w8a8", demo.same_class, (8, 8), tmp_path)
        assert row.sqnr_db > 30
        assert row.task.startswith("same top-1 class for 1")
        assert row.task.endswith(" of 16 photographs")
        assert row.float_bytes == (tmp_path / "tiny.onnx").stat().st_size
        assert row.file_bytes == (tmp_path / "tiny-w8a8" / "model.onnx").stat().st_size

    def test_task_metric_counts_differences(self) -> None:
        one, two = [np.float32([[0, 1], [1, 0]])], [np.float32([[0, 1], [0, 1]])]
        assert demo.same_class([{}], one, two) == "same top-1 class for 1 of 2 photographs"

    def test_missing_package_is_one_line(self, monkeypatch, capsys) -> None:
        def missing(*_):
            raise DataError("package gone is not installed", hint="run: pip install gone")

        monkeypatch.setattr(demo, "quantize", missing)
        assert demo.main() == DataError.exit_code
        assert "ptqc: error: package gone is not installed; run: pip install gone" in (
            capsys.readouterr().err
        )

    @pytest.mark.slow
    def test_real_models(self, capsys) -> None:
        assert demo.main() == 0
        said = capsys.readouterr().out
        assert said.count(" dB") == 3
