"""The third-party pass: found through its entry point, and right."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "prune_plugin"

PROGRAM = """
import numpy as np, ir, passes
from models.tiny import mlp
graph = ir.capture(mlp.load(), mlp.example())
result = passes.run(graph, "prune{below=0.2}", data=mlp.evaluation(4))
weights = [np.asarray(v.const_value) for v in result.graph.graph.initializers.values()
           if v.name.endswith(".pruned")]
(step,) = result.report.steps
(db,) = step.sqnr.values()
print(len(step.sites), len(weights), min((w == 0).mean() for w in weights), db)
"""


def run(path: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{path}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What pip leaves in site-packages: the module, and the entry points of its pyproject.toml."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    (tmp_path / "ptqc_prune.py").write_text((PLUGIN / "ptqc_prune.py").read_text())
    info = tmp_path / "ptqc_prune-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items())
              for group, table in project["entry-points"].items()]  # fmt: skip
    (info / "entry_points.txt").write_text("".join(points))
    return tmp_path


def test_the_pass_is_found_when_its_package_is_installed(installed: Path) -> None:
    done = run(installed)
    assert done.returncode == 0, done.stderr
    sites, weights, zeros, db = done.stdout.split()
    assert sites == weights == "3"
    assert 0.1 < float(zeros) < 0.3  # weights are uniform: 20 % lie under 0.2 of the largest
    assert 5 < float(db) < 40


def test_without_its_package_the_pass_is_unknown(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode != 0
    assert "prune" in done.stderr
    assert "PipelineError" in done.stderr


def test_prune_against_a_loop() -> None:
    sys.path.insert(0, str(PLUGIN))
    try:
        from ptqc_prune import prune  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(PLUGIN))
    weight = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    largest = max(abs(float(w)) for w in weight.flat)
    expected = [w if abs(float(w)) >= 0.3 * largest else 0 for w in weight.flat]
    np.testing.assert_array_equal(prune(weight, 0.3).ravel(), expected)
    assert 0 < (prune(weight, 0.3) == 0).sum() < weight.size
