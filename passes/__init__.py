"""ptqc's passes: `run(graph, pipeline)` applies a list of small named rewrites to a graph."""

from .core import Ctx, Effect, Pass, Stat, register
from .pipeline import Pipeline

__all__ = ["Ctx", "Effect", "Pass", "Pipeline", "Stat", "register"]
