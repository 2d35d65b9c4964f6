"""ptqc's passes: `run(graph, pipeline)` applies a list of small named rewrites to a graph."""

from .core import Ctx, Effect, Pass, Stat, register
from .pipeline import Pipeline
from .report import Report
from .run import Check, Result, run

__all__ = [
    "Check",
    "Ctx",
    "Effect",
    "Pass",
    "Pipeline",
    "Report",
    "Result",
    "Stat",
    "register",
    "run",
]
