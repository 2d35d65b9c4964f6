"""Where graphs run: `build(result, "ort").save(path)`. A backend is imported when asked for."""

from __future__ import annotations

import importlib

from ir.errors import BackendError

from .artifact import Artifact, Manifest, load
from .base import Target, Verdict

TARGETS = {"ort": "backends.ort"}


def target(name: str) -> Target:
    """The target of that name."""
    if name not in TARGETS:
        raise BackendError(f"no target is called '{name}'", hint=f"one of {', '.join(TARGETS)}")
    return importlib.import_module(TARGETS[name]).TARGET


def build(result, name: str = "ort", **options):
    """Lower a graph, or the result of `passes.run`, to an `Artifact` that runs there."""
    return target(name).build(result, **options)


__all__ = [
    "TARGETS", "Artifact", "Manifest", "Target", "Verdict", "build", "load", "target",
]  # fmt: skip
