"""The whole protocol of a pass on one screen: Pass, Effect, Stat, Ctx, and what run() promises it.

A pass is a frozen dataclass whose fields are its options. It declares what it takes, needs and
spoils; the manager checks every one of these claims, so a pass does only its own work:

    run(graph, ctx): change `graph` (a clone, all yours) through `ctx.edit`; tell `ctx.did(site)`
    for every site changed and `ctx.skip(site, reason)` for every site refused. Zero sites is the
    manager's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from backends.base import Target
from ir.edit import Edit
from ir.errors import PassError, describe
from ir.graph import Graph
from ir.verify import Stage


class Effect(Enum):
    """What a pass does to the function that the graph computes."""

    EXACT = "same function: checked by evaluating both sides on real inputs"
    LOSSY = "another function: the report gives the SQNR of every output in dB"
    NOTES = "the graph computes as before; only annotations or statistics are added"


class Stat(Enum):
    """Calibration statistics that `collect` can gather, by the name used in pipelines."""

    ABSMAX = "absmax"
    MINMAX = "minmax"
    MOVING_AVERAGE = "moving_average"
    PERCENTILE = "percentile"
    HISTOGRAM = "histogram"
    MOMENTS = "moments"
    GRAM = "gram"


class Pass(ABC):
    """One named rewrite. See the module docstring; `passes/cleanup/dedup.py` is a small example."""

    name: ClassVar[str]
    effect: ClassVar[Effect] = Effect.EXACT
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.FLOAT})
    makes: ClassVar[Stage | None] = None
    """The stage it leaves; None: the stage it was given."""
    needs: ClassVar[frozenset[Stat]] = frozenset()
    needs_one_of: ClassVar[frozenset[Stat]] = frozenset()
    spoils: ClassVar[frozenset[Stat]] = frozenset()
    optional: ClassVar[bool] = False
    """Whether finding nothing to do is fine (cleanup). Otherwise zero sites is an error."""
    sought: ClassVar[str] = "site of its kind; `ptqc explain` says what it looks for"
    """What it looks for, as that error says it: "the graph holds no ..."."""

    @abstractmethod
    def run(self, graph: Graph, ctx: Ctx) -> None:
        """Do the work on `graph` in place."""

    def gives(self) -> frozenset[Stat]:
        """Statistics that are fresh after this pass."""
        return frozenset()

    def required(self) -> frozenset[Stat]:
        """Statistics that this pass needs with its present options."""
        return self.needs

    def __str__(self) -> str:
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        changed = {k: getattr(self, k) for k, d in defaults.items() if getattr(self, k) != d}
        options = ",".join(f"{key}={option_text(value)}" for key, value in changed.items())
        return f"{self.name}{{{options}}}" if options else self.name


def option_text(value: Any) -> str:
    """An option's value as pipelines write it; `passes.pipeline` reads it back."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return "[" + " ".join(option_text(part) for part in value) + "]"
    text = repr(value) if isinstance(value, float) else str(value)
    plain = text.split() == [text] and text.lower() != "none" and not set(text) & set("{}|,[]'")
    return text if plain else "'" + text.replace("'", "''") + "'"


P = TypeVar("P", bound=type[Pass])
REGISTRY: dict[str, type[Pass]] = {}


def register(cls: P) -> P:
    """Make a pass known by its name. A name used twice is an error, never an override."""
    other = REGISTRY.get(cls.name)
    if other is not None and (other.__module__, other.__qualname__) != (
        cls.__module__, cls.__qualname__
    ):  # fmt: skip
        raise ValueError(
            f"pass name '{cls.name}' of {cls.__module__} is taken by {other.__module__}; rename one"
        )
    REGISTRY[cls.name] = cls
    return cls


Progress = Callable[[str, int, "int | None"], None]
"""Told of long work as it goes: what, how many units are done, of how many (None: unknown)."""


@dataclass
class Skip:
    """A site that a pass left alone, and why."""

    site: str
    reason: str


@dataclass
class Ctx:
    """What a pass may use: its step's editor, statistics, data, randomness; and what it reports."""

    edit: Edit
    target: Target
    rng: np.random.Generator
    stats: dict[Stat, dict[str, Any]] = field(default_factory=dict)
    data: Iterable[dict[str, np.ndarray]] | None = None
    float_graph: Graph | None = None
    """The last FLOAT graph: teacher, residual and yardstick. Never changed. See `teacher`."""
    seed: int = 0
    checkpoint: Path | None = None
    """Where a long walk over the data may save how far it is, and go on from when it is there."""
    progress: Progress = lambda label, done, total: None
    sites: list[str] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def teacher(self) -> Graph:
        """The last FLOAT graph; PassError when the run began with a coded graph and no model."""
        if self.float_graph is None:
            raise PassError(
                "the float model is not known",
                hint="give run(..., float_graph=) the model as it was",
            )
        return self.float_graph

    def did(self, site: object) -> None:
        """Report one site as changed."""
        self.sites.append(describe(site))

    def skip(self, site: object, reason: str) -> None:
        """Report one site as refused, with the reason a user can act on."""
        self.skips.append(Skip(describe(site), reason))

    def note(self, text: str) -> None:
        """One line for the report that belongs to no single site."""
        self.notes.append(text)
