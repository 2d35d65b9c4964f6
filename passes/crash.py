"""Crash folders: the graph before a failing step, the rest of the pipeline, and what the step was
given.

`python -m passes FOLDER` runs them again and so repeats the failure.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calib import stats as accumulators
from ir.capture import save as save_graph
from ir.errors import OutputError, PtqcError
from ir.graph import Graph
from ir.text import show

from .core import Stat
from .pipeline import Pipeline


@dataclass
class State:
    """What a step saw besides the graph."""

    number: int
    seed: int
    target: str
    check: str
    stats: dict[Stat, dict[str, Any]] = field(default_factory=dict)
    probes: list[dict[str, np.ndarray]] = field(default_factory=list)
    float_graph: Graph | None = None
    """Of a coded graph: the last FLOAT one."""


def save(parent: Path, graph: Graph, rest: Pipeline, error: BaseException, state: State) -> Path:
    """Write the folder `ptqc-crash-<number>-<step>` below `parent`; returns it.

    rest: the failing step and those behind it. raises: OutputError when it cannot be written.
    """
    folder = parent / f"ptqc-crash-{state.number:02d}-{rest.steps[0].name}"
    told = (
        str(error) if isinstance(error, PtqcError) else "".join(traceback.format_exception(error))
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_graph(graph, folder / "graph.onnx")
        (folder / "graph.txt").write_text(show(graph), "utf-8")
        (folder / "pipeline.txt").write_text(f"{rest}\n", "utf-8")
        (folder / "error.txt").write_text(f"{told}\n", "utf-8")
        if state.float_graph is not None:
            save_graph(state.float_graph, folder / "float.onnx")
        accumulators.save(folder / "stats.npz", _by_value(state.stats))
        for i, feeds in enumerate(state.probes):
            np.savez(folder / f"probe{i}.npz", *feeds.values())
        facts = {key: getattr(state, key) for key in ("number", "seed", "target", "check")}
        facts["inputs"] = [list(feeds) for feeds in state.probes]
        (folder / "run.json").write_text(json.dumps(facts, indent=1), "utf-8")
    except OSError as problem:
        raise OutputError(f"cannot write the crash folder: {problem}", at=folder) from problem
    return folder


def load(folder: Path) -> tuple[Graph, Pipeline, State]:
    """Read a crash folder back."""
    import ir

    if not (folder / "run.json").is_file():
        raise OutputError(f"'{folder}' is not a crash folder", hint="it has no run.json")
    facts = json.loads((folder / "run.json").read_text("utf-8"))
    graph = ir.capture(folder / "graph.onnx")
    pipeline = Pipeline.parse((folder / "pipeline.txt").read_text("utf-8"))
    probes = [
        dict(zip(names, np.load(folder / f"probe{i}.npz").values(), strict=True))
        for i, names in enumerate(facts["inputs"])
    ]
    teacher = folder / "float.onnx"
    stats: dict[Stat, dict[str, Any]] = {}
    for name, made in accumulators.load(folder / "stats.npz")[0].items():
        for accumulator in made:
            stats.setdefault(Stat(accumulator.name), {})[name] = accumulator
    return graph, pipeline, State(
        facts["number"], facts["seed"], facts["target"], facts["check"], stats, probes,
        ir.capture(teacher) if teacher.is_file() else None,
    )  # fmt: skip


def repeat(folder: Path):
    """Run a crash folder's graph through the rest of its pipeline, on the probes it saved."""
    from .loop import Check
    from .run import run

    graph, pipeline, state = load(folder)
    return run(
        graph, pipeline, data=state.probes or None, target=state.target, seed=state.seed,
        check=Check[state.check], stats=state.stats, float_graph=state.float_graph,
        first=state.number,
    )  # fmt: skip


def _by_value(stats: dict[Stat, dict[str, Any]]) -> dict[str, list[accumulators.Stat]]:
    rows: dict[str, list[accumulators.Stat]] = {}
    for values in stats.values():
        for name, accumulator in values.items():
            rows.setdefault(name, []).append(accumulator)
    return rows
