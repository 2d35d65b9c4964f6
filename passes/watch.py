"""Observers of a run: `run(..., watch=[show(), dump("steps/"), timer()])`. They look, they never
change."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ir.errors import OutputError
from ir.graph import Graph
from ir.text import show as graph_text

from .core import Pass
from .report import StepReport

Printer = Callable[[str], None]


class Observer:
    """Called around every step; override what you want to see."""

    def before(self, number: int, step: Pass, graph: Graph) -> None:
        """Before step `number` (from 1) runs."""

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        """After it was verified and compared; inside a stretch of EXACT steps only verified: when
        their outputs moved, the stretch is run, and observed, again."""

    def failed(self, number: int, step: Pass, graph: Graph, error: BaseException) -> None:
        """When it raised; `graph` may be half changed."""


@dataclass
class show(Observer):
    """Print one line per step."""

    out: Printer = print

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        db = ", ".join(f"{v:.1f} dB" for v in report.sqnr.values())
        exact = f"differs by {report.difference:.1e}" if report.difference is not None else db
        self.out(
            f"{number:2d} {report.step}: {len(report.sites)} sites, {len(report.skips)} skipped, "
            f"{report.nodes_before} -> {report.nodes_after} nodes, {report.seconds:.2f} s"
            + (f", {exact}" if exact else "")
        )


@dataclass
class dump(Observer):
    """Write the graph's text after every step: `00_input.txt`, `01_smooth.txt`, ..."""

    folder: str | Path

    def before(self, number: int, step: Pass, graph: Graph) -> None:
        if number == 1:
            self._write("00_input.txt", graph)

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        self._write(f"{number:02d}_{step.name}.txt", graph)

    def _write(self, name: str, graph: Graph) -> None:
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            (Path(self.folder) / name).write_text(graph_text(graph), "utf-8")
        except OSError as error:
            raise OutputError(f"cannot dump the graph: {error}", at=self.folder) from error


@dataclass
class timer(Observer):
    """Seconds per step, in `.seconds`."""

    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = 0.0

    def before(self, number: int, step: Pass, graph: Graph) -> None:
        self._start = time.perf_counter()

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        self.seconds[f"{number} {step.name}"] = time.perf_counter() - self._start


@dataclass
class diff(Observer):
    """Print what every step changed, as a text diff."""

    out: Printer = print
    _last: list[str] = field(default_factory=list)

    def before(self, number: int, step: Pass, graph: Graph) -> None:
        self._last = graph_text(graph).splitlines()

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        now = graph_text(graph).splitlines()
        for line in difflib.unified_diff(self._last, now, "before", step.name, lineterm="", n=1):
            self.out(line)


@dataclass
class error(Observer):
    """Print how far every LOSSY step is from the float model, per output."""

    out: Printer = print

    def after(self, number: int, step: Pass, graph: Graph, report: StepReport) -> None:
        for name, db in report.sqnr.items():
            self.out(f"{number:2d} {step.name}: %{name} {db:.2f} dB")
