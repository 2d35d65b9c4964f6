"""Measure cells: quantize with ptqc, execute in ONNX Runtime, score, and keep one row each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, lru_cache

import backends
import passes
from backends.torch.executor import using_threads
from benchmarks import record
from benchmarks.record import Row
from benchmarks.study import catalogue
from benchmarks.study.grid import Cell, reads_data
from benchmarks.study.tasks.base import CLEAN, EXACT, Run, Score, Task
from ir.analysis.cost import cost
from ir.analysis.traffic import stored_bytes
from ir.errors import DataError, PtqcError
from ir.graph import Graph

KEY = tuple(Cell.__dataclass_fields__)
Tasks = Callable[[str], Task]


def known(study: str) -> list[Row]:
    """The rows that a study has."""
    return record.rows(f"study/{study}")


def missing(cells: Iterable[Cell]) -> list[Cell]:
    """Those cells that have no row yet. A failure is a row, but what failed for its data (a package
    or a corpus that was not there) is tried again."""
    have: dict[str, list[Row]] = {}
    found = []
    for cell in cells:
        rows = have.setdefault(cell.study, known(cell.study))
        key = cell.key()
        mine = [row for row in rows if all(row.get(k) == v for k, v in key.items())]
        if not mine or mine[0].get("failure", "").startswith(f"{DataError.__name__}:"):
            found.append(cell)
    return found


def measure(cell: Cell, tasks: Tasks = catalogue.task) -> Row:
    """Measure one cell and keep its row. What goes wrong in it becomes the row's `failure`."""
    row: Row = cell.key()
    begun = time.process_time()
    try:
        with using_threads(1):
            row |= _figures(cell, tasks)
    except PtqcError as error:
        row["failure"] = f"{type(error).__name__}: {error}"
    row["cpu_seconds"] = round(time.process_time() - begun, 1)
    record.keep(f"study/{cell.study}", row | record.machine(), KEY)
    return row


def _figures(cell: Cell, tasks: Tasks) -> Row:
    task = tasks(cell.model)
    reference = _float_runs(tasks, cell.model)
    runs, stored, bops = _built(tasks, replace(cell, condition=CLEAN))
    score = task.score(runs, reference, cell.samples, cell.condition, cell.seed)
    sizes = {part: stored_bytes(graph) for part, graph in task.graphs.items()}
    return _numbers(task, score) | {
        "weight_bytes": sum(stored.values()),
        "size_ratio": round(sum(stored.values()) / sum(sizes.values()), 4),
        "memory_io_bytes": task.memory_io(stored),
        "bops": bops,
    }


@lru_cache(maxsize=1)
def _built(tasks: Tasks, cell: Cell) -> tuple[Mapping[str, Run], dict[str, int], int]:
    """(what runs, stored bytes, bit operations) of the model's graphs. One model meets all its
    conditions, which follow each other in a study: the first row's seconds hold its making."""
    task, runs, stored, bops = tasks(cell.model), dict(_float_runs(tasks, cell.model)), {}, 0
    for part, graph in task.graphs.items():
        done = graph
        if cell.pipeline and (not cell.parts or part in cell.parts):
            done = _quantized(cell, task, part, graph)
            runs[part] = backends.build(done, "ort").session(1).run
        stored[part] = stored_bytes(done)
        bops += cost(done, task.binding[part]).bops
    return runs, stored, bops


def _quantized(cell: Cell, task: Task, part: str, graph: Graph) -> Graph:
    data = None
    if reads_data(cell.pipeline):
        count = catalogue.MODELS[cell.model].calibration
        data = task.calibration(part, count, cell.seed, cell.mixed)
    return passes.run(graph, cell.pipeline, data=data, seed=cell.seed).graph


@cache
def _float_runs(tasks: Tasks, model: str) -> Mapping[str, Run]:
    """The float graphs in ONNX Runtime, on one thread."""
    return {
        part: backends.build(graph, "ort").session(1).run
        for part, graph in tasks(model).graphs.items()
    }


def _numbers(task: Task, score: Score) -> Row:
    def short(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.6g}")

    return {
        "metric": task.figure,
        "higher": task.higher,
        "figure": short(score.figure),
        "low": short(score.low),
        "high": short(score.high),
        "sqnr_db": None if score.sqnr_db is None else min(short(score.sqnr_db) or 0.0, EXACT),
        "more": {name: short(value) for name, value in score.more.items()},
    }
