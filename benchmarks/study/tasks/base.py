"""What a task is: float graphs, calibration feeds, and figures of whatever runs the graphs."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

import models
import passes
from calib.degrade import images, mix
from calib.metrics import Difference
from ir.errors import DataError
from ir.graph import Graph

Feed = dict[str, np.ndarray]
Run = Callable[[Feed], Mapping[str, np.ndarray]]
Runs = Mapping[str, Run]
CLEAN = "clean"
EXACT = 200.0
"""Stands for the infinite number of dB of what is equal."""


@dataclass(frozen=True)
class Score:
    """figure: the task's own; low, high: its 95 % interval, where one is known; sqnr_db: of all
    outputs against the float model's; more: further figures by name."""

    figure: float
    low: float | None = None
    high: float | None = None
    sqnr_db: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)


class Task(ABC):
    """One model's task; every graph of it has a name, "" where there is only one."""

    figure: ClassVar[str]
    """Name and unit of the figure, as a table shows it."""
    higher: ClassVar[bool] = True
    """Whether more of it is better."""

    def __init__(self, model: str) -> None:
        self.model = model

    @cached_property
    def module(self):
        return importlib.import_module(f"models.{self.model}")

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """The float graphs by name, captured and tidied once."""
        return {"": tidy(models.capture(self.module))}

    @property
    def binding(self) -> dict[str, dict[str, int]]:
        """Numbers for the symbolic dims of every graph, for counting its operations: those of the
        first test feed."""
        (graph,), (feed,) = self.graphs.values(), self.module.evaluation(1)
        return {"": bound_by(graph, feed)}

    def calibration(self, part: str, n: int, seed: int, mixed: float) -> list[Feed]:
        """n feeds of the graph `part`. mixed: share of degraded ones; tasks that cannot degrade
        raise DataError for one above 0. Sources that are fixed ignore the seed."""
        if mixed:
            raise DataError(f"{self.model} has no degraded calibration data", hint="mixed = [0]")
        return self.module.calibration(n)

    def memory_io(self, stored: dict[str, int]) -> int:
        """Bytes of weights read in one inference, of `stored` bytes a graph."""
        return sum(stored.values())

    @abstractmethod
    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        """Figures of `runs` on n samples; `reference` runs the float graphs."""

    def clean_only(self, condition: str) -> None:
        if condition != CLEAN:
            raise DataError(f"{self.model} knows no condition '{condition}'", hint="use clean")


def bound_by(graph: Graph, feed: Feed) -> dict[str, int]:
    """{symbolic dim of an input: its size in the feed}."""
    pairs = [
        pair for value in graph.graph.inputs
        for pair in zip(value.shape or (), feed[value.name or ""].shape, strict=True)
    ]  # fmt: skip
    return {str(dim.value): size for dim, size in pairs if not isinstance(dim, int)}


def tidy(graph: Graph) -> Graph:
    """The graph in its shortest equal form: shapes are known there that exporters leave open."""
    return passes.run(graph, "clean", threads=1).graph


def compared(
    run: Run, reference: Run, feeds: list[Feed]
) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """(SQNR in dB over all outputs, the first output of both on every feed: reference, run)."""
    total, pairs = Difference(), []
    for feed in feeds:
        wanted, found = reference(feed), run(feed)
        for a, b in zip(wanted.values(), found.values(), strict=True):
            total.add(a, b)
        pairs.append((next(iter(wanted.values())), next(iter(found.values()))))
    return total.result().sqnr_db, pairs


def degraded(pictures: list[np.ndarray], condition: str, seed: int) -> list[np.ndarray]:
    """u8 pictures under a condition of QRID (calib/degrade/images.py), or as they are."""
    if condition == CLEAN:
        return pictures
    if condition not in images.QRID:
        raise DataError(f"no condition is called '{condition}'", hint=", ".join(images.QRID))
    return mix.every(pictures, images.QRID[condition], seed)


def partly(pictures: list[np.ndarray], share: float, seed: int) -> list[np.ndarray]:
    """u8 pictures, a share of them degraded by any of QRID's ways."""
    return mix.mix(pictures, list(images.QRID.values()), share, seed)
