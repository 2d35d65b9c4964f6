"""One run under way: for every step run, verify, compare, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np

from ir import ops
from ir.edit import Edit
from ir.errors import PassError, PtqcError, VerifyError
from ir.graph import Graph, clone, constant, nodes
from ir.verify import Stage, stage_of, verify

from . import crash, evaluate
from .core import Ctx, Effect, Pass, Stat
from .pipeline import Pipeline
from .probe import probes
from .report import Report, StepReport
from .watch import Observer


class Check(Enum):
    """How much of every step's promise is checked."""

    NONE = "nothing"
    VERIFY = "the grammar of the stage"
    COMPARE = "the grammar, and the outputs before and after every stretch of EXACT steps"
    EACH = "the grammar, and the outputs before and after every single step"


class Loop:
    """State of one run."""

    report: Report

    def __init__(
        self, graph, source, pipeline, target, batches, level, seed, watch, progress
    ) -> None:
        self.graph: Graph = graph
        self.source: Graph = source
        self.pipeline: Pipeline = pipeline
        self.float_graph: Graph | None = source if stage_of(source) is Stage.FLOAT else None
        self.target, self.batches, self.check, self.seed = target, batches, level, seed
        self.watch: Sequence[Observer] = watch
        self.progress = progress
        self.stats: dict[Stat, dict] = {}
        self.first = 1
        self._given: tuple = ()
        self.checkpoint: Path | None = None
        self._probes: list[dict[str, np.ndarray]] | None = None
        self._original: evaluate.Outputs | None = None
        self._last: evaluate.Outputs | None = None
        self._open: list[StepReport] = []
        """EXACT steps that changed the graph and are still to be compared: all at once, and one
        by one only if that fails."""
        self.failed = 0
        """The number of the step to blame for an error."""

    def begin(self, stats: dict[Stat, dict] | None, float_graph: Graph | None, first: int) -> None:
        """What an earlier run left."""
        self._given = (stats, float_graph, first)
        self.stats = {stat: dict(values) for stat, values in (stats or {}).items()}
        self.float_graph, self.first = float_graph or self.float_graph, first
        self.report = Report(str(self.pipeline), self.seed, self.target.name)

    def state(self, number: int) -> crash.State:
        """What a later run needs to repeat step `number`, which comes next."""
        known = None if stage_of(self.graph) is Stage.FLOAT else self.float_graph
        return crash.State(
            number, self.seed, self.target.name, self.check.name, self.stats, self._probe(), known
        )

    def before(self, number: int) -> Loop:
        """The run as it stood before step `number`: made again, for keeping a copy per step costs
        more."""
        again = Loop(
            clone(self.source), self.source, self.pipeline, self.target, self.batches, Check.NONE,
            self.seed, (), None,
        )  # fmt: skip
        again.begin(*self._given)
        for earlier, step in enumerate(self.pipeline, self.first):
            if earlier == number:
                break
            again.step(earlier, step)
        again.check = self.check
        return again

    def step(self, number: int, step: Pass) -> None:
        """Run one step and check all that it claims: outputs of a stretch of EXACT steps at its
        last one."""
        self.failed = number
        for observer in self.watch:
            observer.before(number, step, self.graph)
        stage = stage_of(self.graph)
        comparing = self._compares
        if comparing and step.effect is Effect.EXACT and self._last is None:
            self._last = self._outputs()
        if comparing and step.effect is not Effect.NOTES and self._original is None:
            self._original = self._reference()
        if stage is Stage.FLOAT and step.makes not in (None, Stage.FLOAT):
            self.float_graph = clone(self.graph)
        report = StepReport(
            number, str(step), step.effect.name, stage.name, _count(self.graph), _count(self.graph)
        )
        self.report.steps.append(report)
        try:
            self._run(step, report)
            self._check(step, report, comparing)
        except Exception as error:
            if [open.number for open in self._open] not in ([], [number]):
                self._replay()  # an earlier step may have caused it
            for observer in self.watch:
                observer.failed(number, step, self.graph, error)
            if isinstance(error, PtqcError):
                error.cause = f"step {number} '{step.name}': {error.cause}"
            raise
        for observer in self.watch:
            observer.after(number, step, self.graph, report)

    def _run(self, step: Pass, report: StepReport) -> None:
        edit = Edit(self.graph, by=str(step))
        rng = np.random.default_rng([self.seed, report.number])
        ctx = Ctx(edit, self.target, rng, self.stats, self.batches, self.float_graph, self.seed)
        if self.progress is not None:
            ctx.progress = self.progress
        if self.checkpoint is not None:
            ctx.checkpoint = self.checkpoint.with_name(
                f"{self.checkpoint.name}.step{report.number}"
            )
        wall, cpu = time.perf_counter(), time.process_time()
        step.run(self.graph, ctx)
        edit.finish()
        report.seconds, report.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        report.changes, report.sites, report.skips = edit.changes, ctx.sites, ctx.skips
        report.notes, report.nodes_after = ctx.notes, _count(self.graph)
        for stat in step.spoils:
            self.stats.pop(stat, None)
        if not ctx.sites and not step.optional:
            reasons = sorted({skip.reason for skip in ctx.skips})
            raise PassError(
                f"'{step.name}' matched nothing in {report.nodes_before} nodes",
                hint="every site was refused: " + "; ".join(reasons[:3]) if reasons
                else f"the graph holds no {step.sought}",
            )  # fmt: skip

    def _check(self, step: Pass, report: StepReport, comparing: bool) -> None:
        started = time.perf_counter()
        stage = stage_of(self.graph)
        report.stage = stage.name
        if self.check is not Check.NONE:
            if step.makes is not None and stage is not step.makes:
                raise VerifyError(f"'{step.name}' makes {step.makes.name} but left {stage.name}")
            verify(self.graph, stage)
        touched = report.changes or (report.sites and step.effect is not Effect.NOTES)
        pending = step.effect is Effect.LOSSY and _to_be_rounded(self.graph)
        if pending:
            report.notes.append("weights are still to be rounded: outputs are compared after that")
            self._last = None
        elif comparing and step.effect is Effect.LOSSY and touched:
            self._last = self._outputs()
            report.sqnr = evaluate.sqnr(self._original, self._last)  # type: ignore[arg-type]
        elif comparing and step.effect is not Effect.LOSSY:
            if touched:
                self._open.append(report)
            elif step.effect is Effect.EXACT:
                report.difference = 0.0
            if self._ends_stretch(step, report.number):
                self._compare_open(step)
        report.check_seconds = time.perf_counter() - started

    def _ends_stretch(self, step: Pass, number: int) -> bool:
        following = self.pipeline.steps[number - self.first + 1 :][:1]
        inside = step.effect is Effect.EXACT and [s.effect for s in following] == [Effect.EXACT]
        return self.check is Check.EACH or not inside

    def _compare_open(self, step: Pass) -> None:
        """Raises VerifyError where outputs are not what they were before the open steps."""
        if not self._open:
            return
        now = self._outputs()
        found = evaluate.difference(self._last, now) if self._last is not None else None
        if found is None or not found.ok:
            before = self.before(self._open[0].number).graph
            found = evaluate.same_function(before, self.graph, self._probe())
            if not found.ok:
                raise self._moved(step, before, found)
        *others, last = self._open
        for report in others:
            report.notes.append(f"outputs compared together with those of step {last.number}")
        last.difference, self._last, self._open = found.relative, now, []

    def _moved(self, step: Pass, before: Graph, found: evaluate.Difference) -> VerifyError:
        place = evaluate.first_divergence(before, self.graph, self._probe()[0])
        return VerifyError(
            f"'{step.name}' claims {step.effect.name} but moved output %{found.output} by "
            f"{found.relative:.1e} of its range (allowed {evaluate.TOLERANCE:.0e})"
            + (f"; first at {place}" if place else ""),
            hint="this is a defect of the pass: run with crash_dir=... and report the folder",
        )

    def _replay(self) -> None:
        """Run the open steps again, each compared by itself: raises the error of the guilty one."""
        first, last, self._open = self._open[0].number, self._open[-1].number, []
        again = self.before(first)
        again.check, again.watch, again._probes = Check.EACH, self.watch, self._probes
        try:
            for number in range(first, last + 1):
                again.step(number, self.pipeline.steps[number - self.first])
        except Exception:
            self.failed = again.failed
            raise

    @property
    def _compares(self) -> bool:
        return self.check in (Check.COMPARE, Check.EACH)

    def _outputs(self) -> evaluate.Outputs:
        return evaluate.outputs_of(self.graph, self._probe())

    def _reference(self) -> evaluate.Outputs:
        """What SQNR is measured against: the graph as it came in, or its float model when given."""
        if self.float_graph is None or stage_of(self.source) is Stage.FLOAT:
            return self._last or self._outputs()
        return evaluate.outputs_of(self.float_graph, self._probe())

    def _probe(self) -> list[dict[str, np.ndarray]]:
        if self._probes is None:
            self._probes = probes(self.graph, self.batches, self.seed)
        return self._probes


def _to_be_rounded(graph: Graph) -> bool:
    """Whether a weight is still encoded at run time: slow, and never what is deployed."""
    return any(
        ops.is_op(node, "Encode") and constant(node.inputs[0]) is not None for node in nodes(graph)
    )


def _count(graph: Graph) -> int:
    return sum(1 for _ in nodes(graph))
