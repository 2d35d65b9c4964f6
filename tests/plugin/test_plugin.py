"""A third party's package adds a pass through the entry point; its name is used like ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "own_pass"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The package as pip lays it down: its module, and the metadata with its entry point."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "own_pass").symlink_to(PACKAGE / "own_pass")
    info = folder / "own_pass-0.1.0.dist-info"
    info.mkdir()
    import tomllib

    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    points = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text(points)
    return folder


def python(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{code}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_the_pass_is_found_explained_and_run(site: Path) -> None:
    ran = python(
        site,
        """
from passes.cli import main
assert main(["explain", "prune"]) == 0
import passes
from tests.helpers import TINY, tiny_graph
from passes.sites import linears
result = passes.run(tiny_graph("mlp"), "prune{0.25} | place{w=i8@0x1*f32} | rtn")
step = result.report.steps[0]
assert step.step == "prune{share=0.25}" and len(step.sites) == 3, step
from ir.graph import array
for before, after in zip(linears(tiny_graph("mlp")), linears(result.float_graph), strict=True):
    share = (array(after.weight) == 0).mean()
    assert 0.2 < share < 0.3, share
from passes.cli import main
""",
    )
    assert ran.returncode == 0, ran.stderr
    assert "Set the smallest weights of every linear layer to zero." in ran.stdout
    assert "share" in ran.stdout


def test_a_name_that_is_taken_is_an_error(site: Path, tmp_path: Path) -> None:
    module = tmp_path / "rude.py"
    module.write_text(
        "from dataclasses import dataclass\nfrom passes import Pass, register\n"
        "@register\n@dataclass(frozen=True)\nclass Rtn2(Pass):\n    name = 'rtn'\n"
        "    def run(self, graph, ctx):\n        pass\n"
    )
    info = tmp_path / "rude-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: rude\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[passes.plugins]\nrude = rude\n")
    ran = python(tmp_path, "from passes.cli import main; sys.exit(main(['explain', 'rtn']))")
    assert ran.returncode == 6
    assert ran.stderr.startswith("ptqc: error: plugin 'rude' cannot be loaded: pass name 'rtn'")
    assert len(ran.stderr.splitlines()) == 1


def test_its_mathematics() -> None:
    sys.path.insert(0, str(PACKAGE))
    try:
        from own_pass.prune import smallest_to_zero
    finally:
        sys.path.remove(str(PACKAGE))
        from passes.core import REGISTRY

        REGISTRY.pop("prune", None)
    weight = np.float32([[-4, 1], [2, -3]])
    np.testing.assert_array_equal(smallest_to_zero(weight, 0.5), np.float32([[-4, 0], [0, -3]]))
