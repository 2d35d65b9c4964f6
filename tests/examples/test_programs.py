"""Every example runs as its first lines say, and leaves what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backends
from models.tiny import conv

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: object, folder: Path = ROOT) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_deploy(tmp_path: Path) -> None:
    printed = run("examples.deploy", tmp_path / "artifact")
    before, after = (
        np.array([float(n) for n in re.findall(r"-?\d+\.\d*", line)])
        for line in printed.splitlines()
    )
    assert before.shape == after.shape == (6,)
    assert 0 < np.abs(before - after).max() < 0.05 < np.abs(before).max()
    feed = conv.evaluation(1)[0]
    (logits,) = backends.load(tmp_path / "artifact").run(feed).values()
    np.testing.assert_allclose(logits[0, :6], after, atol=2e-3)


def test_export_torch(tmp_path: Path) -> None:
    printed = run("examples.export_torch", tmp_path)
    before, after = map(int, re.findall(r"(\d+) bytes", printed))
    assert after < 0.5 * before
    assert "rtn" in printed
    x = np.ones((3, 64), np.float32)
    (y,) = backends.load(tmp_path / "net-w8a8").run({"x": x}).values()
    assert y.shape == (3, 64)


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    printed = run("examples.demo", folder=tmp_path)
    assert "efficientnet_lite0" in printed
    assert "minilm" in printed
    artifacts = {path.name for path in (tmp_path / "build" / "demo").iterdir()}
    assert artifacts == {
        f"{m}-{k}" for m in ("efficientnet_lite0", "minilm") for k in ("float", "w8a8")
    }
