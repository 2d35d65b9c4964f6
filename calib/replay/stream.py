"""Two streams through a graph, float and quantized, that wait at one region at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calib.replay.regions import Region
from ir.errors import BackendError, DataError

Feed = Mapping[str, np.ndarray]
Tensors = Mapping[str, torch.Tensor]
Rows = Callable[[Feed], "np.ndarray | None"]


@dataclass
class Cache:
    """One region's inputs in both streams and its float outputs, of every batch.

    rows: which leading rows of a batch's output count (None: all); feeds: the graph's own inputs,
    from which the region may still compute a side operand. Batches may differ in shape.
    """

    region: Region
    executor: Any
    floats: list[dict[str, torch.Tensor]]
    inputs: list[dict[str, torch.Tensor]]
    targets: list[torch.Tensor]
    rows: list[torch.Tensor | None]
    feeds: Sequence[Feed]
    settled: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.targets)

    def output(self, index: int, values: Tensors, inputs: Tensors | None = None) -> torch.Tensor:
        """What the student's region gives for a batch with `values` in place of its own.

        inputs: those of the quantized stream unless told otherwise (`floats`, or a mixture).
        """
        known = set(self.executor.graph.graph.initializers)
        params = {k: v for k, v in {**self.settled, **values}.items() if k in known}
        cut = {k: v for k, v in {**self.settled, **values}.items() if k not in known}
        part = self._part(tuple(cut))
        feeds = {**self.feeds[index], **(inputs or self.inputs[index]), **cut}
        return part.run(feeds, params=params)[self.region.output]

    def _part(self, cut: tuple[str, ...]) -> Any:
        made = self.__dict__.setdefault("_parts", {})
        if cut not in made:
            names = dict.fromkeys((*self.executor.inputs, *self.region.inputs, *cut))
            made[cut] = self.executor.region(tuple(names), (self.region.output,))
        return made[cut]

    def arrays(self) -> int:
        """How many tensors it holds."""
        return sum(map(len, self.floats)) + sum(map(len, self.inputs)) + len(self.targets)


class Replay:
    """Advances the two streams from region to region; holds nothing of regions left behind.

    teacher, student: Executors of the float and of the coded graph, in which a value of one name
    means the same. rows: feed -> which rows hold data rather than padding (None: all).

    raises: BackendError when the student does not compute a region's values.
    """

    def __init__(
        self, teacher: Any, student: Any, feeds: Sequence[Feed], *, rows: Rows | None = None
    ) -> None:
        if not feeds:
            raise DataError("there are no calibration batches", hint="give at least one")
        self.teacher, self.student, self.feeds = teacher, student, list(feeds)
        marks = [rows(feed) if rows else None for feed in self.feeds]
        self.rows = [None if mark is None else torch.from_numpy(np.array(mark)) for mark in marks]
        self.settled: dict[str, torch.Tensor] = {}
        self.cache: Cache | None = None

    def settle(self, values: Tensors) -> None:
        """From now on the student holds these tensors; its stream goes on with them."""
        self.settled.update({name: tensor.detach().clone() for name, tensor in values.items()})

    def enter(self, region: Region) -> Cache:
        """Move both streams to the region, from the last one entered (regions in graph order)."""
        last, names = self.cache, region.inputs
        before = [{} for _ in self.feeds] if last is None else last.inputs
        inputs = self._move(self.student, before, names, self.settled)
        known: list[dict[str, torch.Tensor]] = [{} for _ in self.feeds]
        if last is not None:
            known = [
                {**old, last.region.output: target}
                for old, target in zip(last.floats, last.targets, strict=True)
            ]
        self.cache = last = None  # its tensors go as the new ones come
        floats = self._move(self.teacher, known, names, {})
        outputs = self._move(self.teacher, floats, (region.output,), {})
        targets = [found[region.output] for found in outputs]
        self.cache = Cache(
            region, self.student, floats, inputs, targets, self.rows, self.feeds, self.settled
        )
        return self.cache

    def _move(
        self, executor: Any, known: list[dict[str, torch.Tensor]], names: Sequence[str],
        settled: Tensors,
    ) -> list[dict[str, torch.Tensor]]:  # fmt: skip
        """The values `names` of every batch, from what is known of it and from its feed."""
        missing = [n for n in names if n not in executor.program.names]
        if missing:
            raise BackendError(
                f"the graph has no value named {missing[0]!r}",
                at=f"%{missing[0]}",
                hint="regions are named by values that both graphs compute",
            )
        initializers = executor.graph.graph.initializers
        params = {k: v for k, v in settled.items() if k in initializers}
        values = {k: v for k, v in settled.items() if k not in initializers}
        cut = dict.fromkeys((*executor.inputs, *known[0], *values))
        part = executor.region(tuple(cut), tuple(names))
        results = []
        with torch.no_grad():
            for feed, have in zip(self.feeds, known, strict=True):
                found = part.run({**feed, **have, **values}, params=params)
                results.append({name: found[name].detach() for name in names})
        return results
