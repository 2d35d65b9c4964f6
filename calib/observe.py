"""Stream values through the graph once, into every statistic asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
import psutil
import torch

from calib.checkpoint import Checkpoint, key_of
from calib.interrupts import whole_steps
from calib.progress import Callback, track
from calib.stats.base import Stat
from calib.stats.sample import Sample
from ir.errors import DataError, PassError

Feed = Mapping[str, np.ndarray]


class Observed(dict[str, list[Stat]]):
    """The filled statistics by value name, and what the walk took.

    batches: walked, with those of a resumed checkpoint; seconds: wall time; peak_bytes: the
    process's largest resident size so far; grown_bytes: how far above its size at the start.
    """

    batches: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    grown_bytes: int = 0


def observe(
    graph: onnx_ir.Model,
    batches: Iterable[Feed],
    wants: Mapping[str, Sequence[Stat]],
    *,
    masks: Mapping[str, float] | None = None,
    progress: Callback | bool | None = None,
    threads: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 5.0,
    executor: Any = None,
) -> Observed:
    """Fill the fresh accumulators of `wants` {value name: statistics} in one walk of the data.

    Nothing of a batch is kept but what the statistics hold. masks: {value name: threshold},
    elements at or below it are mask constants and do not count. progress: callback(done, total),
    False for none, else a bar after a second. threads: for torch, during the walk. checkpoint:
    a file saved every `checkpoint_seconds` and on interruption; a walk that finds it goes on
    from there, and removes it at the end. executor: the graph's Executor if there is one already.

    raises: PassError when the graph computes no such value; DataError on NaN or Inf (naming value
    and batch), no batches, or a checkpoint of other work. KeyboardInterrupt passes through.
    """
    masks = dict(masks or {})
    found = Observed({name: list(stats) for name, stats in wants.items()})
    _check_names(graph, found)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, found, key_of(graph, found, masks), checkpoint_seconds)
    begun, resident = time.monotonic(), psutil.Process().memory_info().rss
    with _threads(threads):
        walk = _Walk(graph, executor or _executor(graph), found, masks)
        total = getattr(batches, "total", None)
        found.batches = _run(walk, track(batches, total, progress, "calibrating"), saved)
    if not found.batches:
        raise DataError("there are no calibration batches", hint="give at least one")
    found.seconds = time.monotonic() - begun
    found.peak_bytes = peak_resident()
    found.grown_bytes = max(0, found.peak_bytes - resident)
    return found


def _run(walk: _Walk, batches: Iterator[Feed], saved: Checkpoint | None) -> int:
    """The number of batches walked; on any stop what is complete is saved first."""
    index, torn = -1, False
    with contextlib.closing(batches):  # type: ignore[type-var]
        try:
            for index, feed in enumerate(batches):
                if saved and saved.passed(index, feed):
                    continue
                with whole_steps(saved is not None):
                    torn = True  # the batch is in some statistics and not in others
                    walk.step(index, feed)
                    if saved:
                        saved.add(index, feed)
                    torn = False
        except BaseException:
            if saved and not torn:
                saved.save()
            raise
    if saved:
        saved.finish(index + 1)
    return index + 1


class _Walk:
    """One executor, and the statistics that watch it."""

    def __init__(
        self,
        graph: onnx_ir.Model,
        executor: Any,
        stats: Observed,
        masks: Mapping[str, float],
    ) -> None:
        inputs = {value.name for value in graph.graph.inputs}
        self.executor = executor
        self.stats = stats
        self.masks = masks
        self.fed = [name for name in stats if name in inputs]
        self.watch = {name: self._taker(name) for name in stats if name not in inputs}

    def step(self, index: int, feed: Feed) -> None:
        try:
            for name in self.fed:
                self._take(name, feed[name])
            if self.watch:
                self.executor.run(feed, outputs=(), watch=self.watch)
        except DataError as error:
            where = f"{error.at}, batch {index}" if error.at is not None else f"batch {index}"
            raise DataError(error.cause, at=where, hint=error.hint) from error

    def _taker(self, name: str) -> Callable[[torch.Tensor], None]:
        return lambda tensor: self._take(name, tensor)

    def _take(self, name: str, tensor: Any) -> None:
        sample = Sample(tensor, ignore_below=self.masks.get(name), name=name)
        for stat in self.stats[name]:
            stat.add(sample)


def _executor(graph: onnx_ir.Model) -> Any:
    from backends.torch import Executor

    return Executor(graph)


def _check_names(graph: onnx_ir.Model, wants: Mapping[str, Sequence[Stat]]) -> None:
    known = {value.name for value in graph.graph.inputs}
    for body in graph.graph.subgraphs():
        known.update(value.name for value in body.inputs)
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        known.update(value.name for value in node.outputs)
    for name, stats in wants.items():
        if name not in known:
            constant = name in graph.graph.initializers
            raise PassError(
                "a constant needs no observing" if constant else "the graph computes no such value",
                at=f"%{name}",
                hint="read its array" if constant else "name a graph input or a node's output",
            )
        if any(stat.batches for stat in stats):
            raise PassError(
                "an accumulator was used before",
                at=f"%{name}",
                hint="give a fresh one",
            )


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_resident() -> int:
    """Largest resident size of this process so far, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
