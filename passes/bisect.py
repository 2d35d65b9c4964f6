"""Which step, and which value, broke a model: the pipeline is run until its outputs fall, and the
two sides of that step are compared value by value.

    found = bisect(graph, "w8a8", data, threshold_db=20)
    print(found)   # step 8 'place{...}': %h of MatMul '/fc/MatMul'; outputs 140.0 -> 3.1 dB
"""

from __future__ import annotations

from dataclasses import dataclass

import calib
import ir
from backends.base import Target
from ir.errors import VerifyError, describe
from ir.graph import Graph, clone, nodes
from ir.verify import Stage, stage_of, verify

from . import evaluate
from .compare import gaps, win_back
from .core import Effect, Pass
from .evaluate import Outputs
from .pipeline import Pipeline
from .probe import Feeds, probes
from .report import StepReport
from .run import run
from .watch import Observer


@dataclass(frozen=True)
class Finding:
    """The first bad step of a pipeline, and where in the graph its error enters.

    number, step: of the pipeline, from 1. value, node: the first value, in execution order, that
    the step spoiled; for a placement of codes the layer that costs most; empty when no value is
    spoiled alone. db_before, db_after: SQNR in dB of the worst output against the model as it came
    in, within +-`evaluate.LIMIT_DB`.
    """

    number: int
    step: str
    value: str
    node: str
    db_before: float
    db_after: float

    def __str__(self) -> str:
        place = f"%{self.value} of {self.node}; " if self.value else ""
        return (
            f"step {self.number} '{self.step}': {place}"
            f"outputs {self.db_before:.1f} -> {self.db_after:.1f} dB"
        )


def bisect(
    graph, pipeline: str | Pipeline, data=None, *, threshold_db: float = 20.0,
    target: str | Target = "ort", seed: int = 0,
) -> Finding | None:  # fmt: skip
    """The first step after which an output is below `threshold_db`, or the first EXACT step that
    moved one; None when there is neither.

    graph, pipeline, data, target, seed: as of `passes.run`, which runs the steps and whose other
    errors come through. Measured on the samples that `run` checks steps on.
    """
    source = graph if isinstance(graph, Graph) else ir.capture(graph)
    batches = None if data is None else calib.data.load(data, source, seed=seed)
    feeds = probes(source, batches, seed)
    fall = _Fall(evaluate.outputs_of(source, feeds), feeds, threshold_db)
    try:
        run(source, pipeline, data=batches, target=target, seed=seed, watch=[fall])
    except _Fell:
        pass
    except VerifyError:
        if fall.broken is None:
            raise
    if fall.broken is None or fall.step is None:
        return None
    return _finding(source, fall)


class _Fell(Exception):
    """Stops the run behind the bad step."""


class _Fall(Observer):
    """Keeps the graph before every step, until one makes the outputs fall."""

    def __init__(self, reference: Outputs, feeds: list[Feeds], threshold_db: float) -> None:
        self.reference, self.feeds, self.threshold_db = reference, feeds, threshold_db
        self.number = 0
        self.step: Pass | None = None
        self.kept: Graph | None = None
        self.broken: Graph | None = None

    def before(self, number: int, step: Pass, graph: Graph) -> None:
        self.number, self.step, self.kept = number, step, clone(graph)

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        lossy = step.effect is Effect.LOSSY and report.changes
        if lossy and self.db(graph) < self.threshold_db:
            self.broken = graph
            raise _Fell

    def db(self, graph: Graph) -> float:
        """SQNR in dB of the worst output (`run` itself waits until the weights are rounded)."""
        outputs = evaluate.outputs_of(graph, self.feeds)
        return evaluate.worst_db(evaluate.sqnr(self.reference, outputs))

    def failed(self, number: int, step: Pass, graph: Graph, error: BaseException) -> None:
        if isinstance(error, VerifyError) and step.effect is not Effect.LOSSY and _sound(graph):
            self.broken = graph


def _sound(graph: Graph) -> bool:
    try:
        verify(graph)
    except VerifyError:
        return False
    return True


def _finding(source: Graph, fall: _Fall) -> Finding:
    assert fall.kept is not None
    assert fall.broken is not None
    value = _entry(source, fall, fall.feeds)
    node = next((n for n in nodes(fall.broken) if any(v.name == value for v in n.outputs)), None)
    return Finding(
        fall.number, str(fall.step), value, describe(node) if node is not None else "",
        fall.db(fall.kept), fall.db(fall.broken),
    )  # fmt: skip


def _entry(source: Graph, fall: _Fall, feeds: list[Feeds]) -> str:
    """The name of the value where the error enters, or nothing."""
    kept, broken = fall.kept, fall.broken
    assert kept is not None
    assert broken is not None
    assert fall.step is not None
    if fall.step.effect is not Effect.LOSSY:
        place = evaluate.first_divergence(kept, broken, feeds[0])
        return place.value if place is not None else ""
    if stage_of(kept) is Stage.FLOAT and stage_of(broken) is Stage.CODED:
        layers = win_back(kept, broken, feeds)
        return layers[0].layer if layers and layers[0].gain_db > 0 else ""
    good = {row.value: row.sqnr_db for row in gaps(source, kept, feeds)}
    for row in gaps(source, broken, feeds):
        if not row.sqnr_db >= fall.threshold_db and good.get(row.value, 0) >= fall.threshold_db:
            return row.value
    return ""
