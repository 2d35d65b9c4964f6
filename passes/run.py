"""`run`: check the order, apply every step to a copy of the graph, and say what was done."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import backends
import calib
from backends.base import Target
from backends.torch.executor import using_threads
from ir.graph import Graph, clone, few_collections
from ir.verify import Stage, stage_of, verify

from . import crash
from .core import Progress, Stat
from .loop import Check, Loop
from .pipeline import Pipeline, check_order
from .report import Report
from .watch import Observer


@dataclass
class Result:
    """A run's graph and everything said about it."""

    graph: Graph
    report: Report
    float_graph: Graph | None
    """The last FLOAT graph: `graph` itself while nothing is coded; None when it came in coded."""
    stats: dict[Stat, dict] = field(default_factory=dict)

    @property
    def pipeline(self) -> str:
        return self.report.pipeline


@few_collections()
def run(
    graph,
    pipeline: str | Pipeline,
    *,
    data=None,
    target: str | Target = "ort",
    watch: Iterable[Observer] = (),
    check: Check = Check.COMPARE,
    seed: int = 0,
    crash_dir: str | Path | None = None,
    progress: Progress | None = None,
    stats: dict[Stat, dict] | None = None,
    float_graph: Graph | None = None,
    first: int = 1,
    checkpoint: str | Path | None = None,
    threads: int | None = None,
) -> Result:
    """Apply a pipeline (or a recipe's name) to a graph; the caller's graph is never touched.

    graph: an `ir.Graph`, or anything `ir.capture` reads. data: what `calib.data.load` reads.
    check: COMPARE runs a stretch of EXACT steps and compares what went in and what came out; only
    when that differs are they run again one by one. EACH compares after every step.
    crash_dir: where a failing step leaves its graph and the rest of the pipeline; None: nowhere.
    progress: called as (what, done, total) during long work.
    stats, float_graph: statistics and float model of an earlier `Result`, for pipelines that go on
    from its coded graph; SQNR is then measured against that float model.
    first: the first step's number, for seeds and messages; crash folders go on counting.
    checkpoint: a path; `<path>.step<number>` holds how far that step's walk over the data is, so
    that a run that was stopped goes on from there. Gone when the walk ends.
    threads: of torch, during the run; None: as set. On a busy machine one is often fastest.
    Raises PipelineError before any work, PassError or VerifyError with the step's number.
    """
    import ir

    started = time.perf_counter()
    source = graph if isinstance(graph, Graph) else ir.capture(graph)
    pipeline = Pipeline.parse(pipeline) if isinstance(pipeline, str) else pipeline
    target = backends.target(target) if isinstance(target, str) else target
    stage = stage_of(source)
    check_order(pipeline, stage, has_data=data is not None, fresh=set(stats or ()))
    batches = (
        data
        if data is None or isinstance(data, calib.data.Batches)
        else calib.data.load(data, source, seed=seed)
    )
    work = clone(source)
    if check is not Check.NONE:
        verify(work, stage)
    loop = Loop(work, source, pipeline, target, batches, check, seed, tuple(watch), progress)
    loop.checkpoint = None if checkpoint is None else Path(checkpoint)
    loop.begin(stats, float_graph, first)
    with using_threads(threads):
        try:
            for number, step in enumerate(pipeline, first):
                loop.step(number, step)
        except Exception as error:
            if crash_dir is not None:
                _leave(Path(crash_dir), loop, loop.failed, error)
            raise
    loop.report.seconds = time.perf_counter() - started
    loop.report.peak_bytes = peak_bytes()
    last = loop.graph if stage_of(loop.graph) is Stage.FLOAT else loop.float_graph
    return Result(loop.graph, loop.report, last, loop.stats)


def _leave(parent: Path, loop: Loop, number: int, error: Exception) -> None:
    """Write the crash folder and note on the error where it is, or why there is none."""
    try:
        before = loop.before(number)
        rest = Pipeline(*loop.pipeline.steps[number - loop.first :])
        folder = crash.save(parent, before.graph, rest, error, before.state(number))
    except Exception as problem:  # the step's own error matters more
        error.add_note(f"no crash folder was written: {problem}")
    else:
        error.add_note(f"crash folder: {folder}; repeat with `python -m passes {folder}`")


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
