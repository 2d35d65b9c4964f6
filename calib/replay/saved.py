"""Where a walk over regions stands, in one file, so that a killed run ends bit-equal."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calib.checkpoint import digest, key_of
from ir.errors import DataError, OutputError
from ir.graph import Graph, array

_SHARE = 20  # saving may take one part in 20 of the time


class Saved:
    """Parameters of the regions that are done, and the state of the one in hand.

    path: None keeps all in memory; key: a digest of the work, which the file must match.

    raises: DataError when the file belongs to other work; OutputError when it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str] | None, key: str, every: float = 5.0) -> None:
        self.path = None if path is None else Path(path)
        self.key, self.wait, self.every = key, every, every
        self.done: dict[str, Any] = {}
        self.current: dict[str, Any] = {}
        self._saved = time.monotonic()
        if self.path is not None and self.path.exists():
            self._restore(self.path)

    def begin(self, region: str) -> dict[str, Any] | None:
        """The state that an earlier run left of this region, if it was in the middle of it."""
        return self.current if self.current.get("region") == region else None

    def hold(self, region: str, state: dict[str, Any]) -> None:
        """The state after a whole step; saves when it is time to."""
        self.current = {"region": region, **state}
        if time.monotonic() - self._saved >= self.wait:
            self.save()

    def finish(self, region: str, result: Any) -> None:
        """The region is done."""
        self.done[region], self.current = result, {}
        self.save()

    def save(self) -> None:
        if self.path is None:
            return
        begun = time.monotonic()
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            torch.save({"key": self.key, "done": self.done, "current": self.current}, unfinished)
            os.replace(unfinished, self.path)
        except (OSError, RuntimeError) as error:
            unfinished.unlink(missing_ok=True)
            raise OutputError(
                f"the state of learning cannot be written: {error}",
                at=self.path,
                hint="free some space or choose another place",
            ) from error
        self._saved = time.monotonic()
        self.wait = max(self.every, _SHARE * (self._saved - begun))

    def remove(self) -> None:
        """All is done: the file has done its work."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _restore(self, path: Path) -> None:
        try:
            found = torch.load(path, weights_only=True)
            key = found["key"]
        except Exception as error:
            raise DataError(
                "is no state of learning", at=path, hint="remove it, or name another file"
            ) from error
        if key != self.key:
            raise DataError(
                "checkpoint belongs to other work: the graph, the options or the data differ",
                at=path,
                hint="remove it, or name another file",
            )
        self.done, self.current = found["done"], found["current"]


def work_key(
    graph: Graph, feeds: Sequence[Mapping[str, np.ndarray]], options: str, seed: int
) -> str:
    """Digest of all that learning depends on: the graph with its numbers, the options (of the
    pass, by its text), the data and the seed."""
    found = hashlib.sha256("\n".join([key_of(graph, {}, {}), options, str(seed)]).encode())
    for name, value in graph.graph.initializers.items():
        numbers = array(value)
        if numbers is not None and numbers.dtype.kind != "O":
            found.update(name.encode() + np.ascontiguousarray(numbers).tobytes())
    found.update("\n".join(map(digest, feeds)).encode())
    return found.hexdigest()
