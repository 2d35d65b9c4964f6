"""Where a walk over the data stands, so that a killed one goes on with the same result."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir

from calib.stats.base import Stat
from calib.stats.store import describe, load, save
from ir.errors import DataError

_SHARE = 20  # saving may take one part in 20 of the time


class Checkpoint:
    """The file beside a walk: statistics, how many batches are in them, and a check that graph,
    wants and data are the same. Saved whole or not at all.

    raises: DataError when the file belongs to other work; OutputError when it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        stats: Mapping[str, Sequence[Stat]],
        key: str,
        every: float,
    ) -> None:
        self.path = Path(path)
        self.stats = stats
        self.key = key
        self.wait = self.every = every
        self.done = 0
        self._last = ""
        self._feed: Mapping[str, np.ndarray] | None = None
        self._saved = time.monotonic()
        if self.path.exists():
            self._restore()

    def passed(self, index: int, feed: Mapping[str, np.ndarray]) -> bool:
        """Whether batch `index` is in the statistics already; checks that it is the same batch."""
        if index == self.done - 1 and digest(feed) != self._last:
            raise self._foreign("the data differ")
        return index < self.done

    def add(self, index: int, feed: Mapping[str, np.ndarray]) -> None:
        """Batch `index` is in the statistics now; saves when it is time to."""
        self.done, self._feed = index + 1, feed
        if time.monotonic() - self._saved >= self.wait:
            self.save()

    def save(self) -> None:
        if not self.done:
            return
        begun = time.monotonic()
        if self._feed is not None:
            self._last = digest(self._feed)
        save(self.path, self.stats, {"done": self.done, "key": self.key, "last": self._last})
        self._saved = time.monotonic()
        self.wait = max(self.every, _SHARE * (self._saved - begun))

    def finish(self, walked: int) -> None:
        """All batches are in the statistics: the file has done its work."""
        if walked < self.done:
            raise self._foreign(f"the data have only {walked} batches of its {self.done}")
        self.path.unlink(missing_ok=True)

    def _restore(self) -> None:
        found, note = load(self.path)
        if note.get("key") != self.key:
            raise self._foreign("the graph, the statistics or the masks differ")
        for name, stats in self.stats.items():
            for stat, old in zip(stats, found[name], strict=True):
                stat.restore(old.state())
        self.done, self._last = note["done"], note["last"]

    def _foreign(self, why: str) -> DataError:
        return DataError(
            f"checkpoint belongs to other work: {why}",
            at=self.path,
            hint="remove it, or name another file",
        )


def key_of(
    graph: onnx_ir.Model, stats: Mapping[str, Sequence[Stat]], masks: Mapping[str, float]
) -> str:
    """Digest of the graph's structure, what is asked for, and the masks (not of the weights)."""
    nodes = [
        [node.domain, node.op_type, [value.name for value in node.outputs]]
        for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph)
    ]
    weights = [[name, str(value.shape)] for name, value in graph.graph.initializers.items()]
    text = json.dumps([nodes, weights, describe(stats), dict(masks)])
    return hashlib.sha256(text.encode()).hexdigest()


def digest(feed: Mapping[str, np.ndarray]) -> str:
    found: Any = hashlib.sha256()
    for name, array in feed.items():
        found.update(f"{name}{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
