"""Golden cases of streams: tests/analysis/streams/<pattern>.txt.

    # why: what this case shows
    graph g(%x: f64[2,8]) -> %y { ... }
    -->
    scale: a line for each stream, as `describe` writes it, or why it is refused
    permute: the same for the streams of permutations

Whatever a stream admits is folded with random maps in double precision, and must leave every value
that keeps its name. `pytest --update-golden` rewrites what follows the arrow.
"""

from pathlib import Path

import numpy as np
import pytest

import ir
from ir.analysis.streams import describe, streams
from tests.analysis.folding import check_folds

CASES = sorted((Path(__file__).parent / "streams").glob("*.txt"))
ARROW = "-->"


def parts(path: Path) -> tuple[str, str, str]:
    head, _, found = path.read_text().partition(f"{ARROW}\n")
    lines = head.splitlines(keepends=True)
    count = sum(line.startswith("#") for line in lines)
    assert any(line.startswith("# why: ") for line in lines[:count])
    return "".join(lines[:count]), "".join(lines[count:]), found


def lines(graph: str) -> str:
    return "".join(
        f"{goal}: {describe(stream)}\n"
        for goal in ("scale", "permute")
        for stream in streams(ir.parse(graph), goal)
    )


def feeds(graph: ir.Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        v.name: rng.normal(size=tuple(v.shape)).astype(v.dtype.numpy())
        if v.dtype.is_floating_point()
        else rng.integers(0, 4, tuple(v.shape))
        for v in graph.graph.inputs
    }


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_case(path, request):
    head, graph, wanted = parts(path)
    found = lines(graph)
    if request.config.getoption("--update-golden"):
        path.write_text(f"{head}{graph}{ARROW}\n{found}")
    else:
        assert found == wanted
    tried = [
        kind
        for goal in ("scale", "permute")
        for kind in check_folds(graph, feeds(ir.parse(graph)), 1e-10, goal)
    ]
    assert len(tried) == sum(
        len(s.maps) for goal in ("scale", "permute") for s in streams(ir.parse(graph), goal)
    )


def test_a_broken_fold_is_caught(monkeypatch):
    """A writer that is forgotten shows in the outputs, and a wrong value in the stream."""
    graph = parts(Path(__file__).parent / "streams" / "relu.txt")[1]
    import tests.analysis.folding as folding

    def forgetful(stream, rng, edit):
        from dataclasses import replace

        numbers = np.exp(rng.normal(size=stream.channels))
        folding.fold_scale(replace(stream, writers=stream.writers[:1]), numbers, edit)
        return numbers

    monkeypatch.setitem(folding.FOLDS, "scale", forgetful)
    with pytest.raises(AssertionError):
        list(check_folds(graph, feeds(ir.parse(graph)), 1e-10, "scale"))
