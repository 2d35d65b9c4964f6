"""The snippets in the documents run as they stand there, in order."""

import re
from pathlib import Path

import numpy as np
import pytest

import ir
import passes
from passes.core import REGISTRY
from passes.registry import passes as registered
from tests.helpers import MLP

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


def snippets(path: Path) -> list[str]:
    found = BLOCK.findall(path.read_text("utf-8"))
    assert found, f"{path} has no snippet"
    return found


def run_all(path: Path, names: dict) -> dict:
    """The names that the snippets leave, run one after the other in one namespace."""
    for number, code in enumerate(snippets(path), 1):
        exec(compile(code, f"{path.name}, snippet {number}", "exec"), names)
    return names


@pytest.fixture
def registry():
    """What snippets register is forgotten again."""
    known = dict(registered())
    yield
    REGISTRY.clear()
    REGISTRY.update(known)


@pytest.mark.usefixtures("registry")
def test_contributing(capsys):
    names = run_all(
        ROOT / "CONTRIBUTING.md", {"__name__": "contributing", "ir": ir, "passes": passes}
    )
    cls = names["DropNegatedPairs"]
    assert REGISTRY["drop_negated_pairs"] is cls
    body = snippets(ROOT / "CONTRIBUTING.md")[0].split("    name = ")[1]
    assert len(body.splitlines()) <= 10, "'ten lines' must stay true"
    for part in ("rewrite", "shapes", "options", "error", "raises", "source"):
        assert f"{part}:" in cls.__doc__


def test_debugging(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    graph = ir.parse(MLP)
    data = {"x": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)}
    result = passes.run(graph, "w8a8", data=data)
    names = {"__name__": "debugging", "ir": ir, "passes": passes, "graph": graph, "data": data,
             "result": result}  # fmt: skip
    names = run_all(ROOT / "docs" / "debugging.md", names)
    printed = capsys.readouterr().out
    assert "'place{" in str(names["found"])
    assert "dB with keep=['value:" in printed
    assert "step 1 'rtn' takes CODED, but the graph is FLOAT" in printed
    assert (tmp_path / "steps" / "00_input.txt").is_file()
    assert not (tmp_path / "crashes").exists()
    assert len(names["clock"].seconds) == len(passes.Pipeline.parse("clean"))


def test_links_of_the_documents_lead_somewhere():
    links = 0
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
            links += 1
    assert links >= 3
