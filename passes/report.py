"""What a run did: one record per step, and their sum. Plain data; printing is
`passes/show_report.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from .core import Skip


@dataclass
class StepReport:
    """One step: what it changed, what it refused and why, what it cost, what it did to the
    outputs."""

    number: int
    step: str
    effect: str
    stage: str
    """Stage after the step."""
    nodes_before: int
    nodes_after: int
    changes: int = 0
    sites: list[str] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time of the pass itself."""
    cpu_seconds: float = 0.0
    check_seconds: float = 0.0
    """Wall time of verifying and comparing."""
    difference: float | None = None
    """EXACT: largest relative output difference that the check saw."""
    sqnr: dict[str, float] = field(default_factory=dict)
    """LOSSY: SQNR in dB of every output against the model as it came in."""


@dataclass
class Report:
    """The whole run."""

    pipeline: str
    seed: int
    target: str
    steps: list[StepReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int = 0
    """Peak resident memory of the process."""

    def asdict(self) -> dict:
        """JSON-ready."""
        return asdict(self)

    @property
    def sqnr(self) -> dict[str, float]:
        """SQNR per output after the last LOSSY step (simulated by the torch executor)."""
        return next((s.sqnr for s in reversed(self.steps) if s.sqnr), {})
