"""One stream through a graph that computes every node once and stops where it is asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ir.errors import DataError
from ir.graph import Graph, Node, Value, inner_graphs


class Front:
    """All batches at one place of the main graph: just the values that later nodes still read.

    executor: of `graph`; feeds: batches of the graph's inputs. `advance(value)` computes what lies
    before the value's first reader, once, with what was settled so far, and gives the value of
    every batch. Places must be asked for in the order of the graph.

    Weights that a region is to see are given by name of any value, as by `Replay.settle`.
    """

    def __init__(self, graph: Graph, executor: Any, feeds: Sequence[Mapping[str, np.ndarray]]):
        if not feeds:
            raise DataError("there are no calibration batches", hint="give at least one")
        self.nodes = list(graph.graph)
        self.executor = executor
        self.state: list[dict[str, Any]] = [dict(feed) for feed in feeds]
        self.settled: dict[str, torch.Tensor] = {}
        self.done = 0
        self._last_use: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            for value in read_by(node):
                self._last_use[value.name or ""] = index
        self._made = {v.name or "": i for i, n in enumerate(self.nodes) for v in n.outputs}
        self._fed = set(executor.inputs)

    def settle(self, values: Mapping[str, torch.Tensor]) -> None:
        """Values that take the place of those the graph computes, until nobody reads them."""
        self.settled.update(values)

    def advance(self, value: str) -> list[torch.Tensor]:
        """The value of every batch; everything behind its last reader so far is let go."""
        stop = max(self.done, self._made.get(value, -1) + 1)
        held = {name for name, i in self._made.items() if i < stop}
        alive = [n for n in (*self._fed, *held) if self._last_use.get(n, -1) >= stop]
        wanted = list(dict.fromkeys((*alive, value)))
        wanted = [n for n in wanted if not self._constant(n)]
        fresh = [n for n in wanted if n not in self.state[0]]
        fixed = {k: t for k, t in self.settled.items() if k in self._made}
        params = {k: t for k, t in self.settled.items() if k not in self._made}
        cut = tuple(dict.fromkeys((*self._fed, *self.state[0], *fixed)))
        part = self.executor.region(cut, tuple(fresh)) if fresh else None
        for index, known in enumerate(self.state):
            found: dict[str, Any] = {}
            if part is not None:
                with torch.no_grad():
                    found = part.run({**known, **fixed}, params=params)
            every = {**known, **found}
            self.state[index] = {name: every[name] for name in wanted}
        self.done = stop
        self.settled = {k: t for k, t in self.settled.items() if self._last_use.get(k, -1) >= stop}
        return [torch.as_tensor(known[value]) for known in self.state]

    def _constant(self, name: str) -> bool:
        """Whether a value follows from constants alone: the executor computes those by itself."""
        if name in self._fed:
            return False
        if not hasattr(self, "_fixed"):
            moving = set(self._fed)
            for node in self.nodes:
                if any((v.name or "") in moving for v in read_by(node)) or not node.inputs:
                    moving.update(v.name or "" for v in node.outputs)
            self._fixed = set(self._made) - moving
        return name in self._fixed


def read_by(node: Node) -> list[Value]:
    """What a node reads, in its bodies too."""
    bodies = inner_graphs([node])  # type: ignore[arg-type]
    every = [node, *(each for body in bodies for each in body)]
    return [v for each in every for v in each.inputs if v is not None]
