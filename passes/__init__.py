"""ptqc's passes: `run(graph, pipeline)` applies a list of small named rewrites to a graph.

Names are loaded when first asked for, so that `ptqc --help` need not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core import Ctx, Effect, Pass, Stat, register
    from .loop import Check
    from .pipeline import Pipeline
    from .report import Report
    from .run import Result, run

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

_HOMES = {
    **dict.fromkeys(("Ctx", "Effect", "Pass", "Stat", "register"), "core"),
    "Check": "loop",
    "Result": "run",
    "Pipeline": "pipeline",
    "Report": "report",
}


class _Package(ModuleType):
    """The package, in which `run` is the function although a module has that name too."""

    @property
    def run(self) -> Any:
        return importlib.import_module("passes.run").run

    @run.setter
    def run(self, module: ModuleType) -> None:
        """The import system puts every submodule on its package: `run` keeps its meaning."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'passes' has no attribute '{name}'")
        return getattr(importlib.import_module(f"passes.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _Package
