"""Activation channels that writers and readers can share a map on: scale, shift, permutation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ir.graph import Graph, Node, Value, graphs

from .describe import describe
from .found import blocked, stream
from .fused import queries
from .heads import scores
from .lanes import Axes, Lane, sizes
from .ports import Port, Role, Stream, contraction, unshifted
from .read import read
from .residual import Residual, residuals
from .walk import CROSSED, Cut, Goal, Walk
from .write import write

__all__ = ["Port", "Residual", "Role", "Stream", "describe", "residuals", "streams", "unshifted"]


def streams(graph: Graph, goal: Goal = "scale") -> list[Stream]:
    """Every stream that ends in linear layers with constant weights, in graph order.

    Needs inferred shapes; open dims are fine. A norm's output read by several linears is one
    stream; layout ops, ReLU, pooling, and Reshape that splits or merges heads are passed, as are
    a Split of a wide layer (of which the stream is a part), the weighted sum of an attention (v to
    o), one operand of a product (up beside its gate; a norm under a computed scale and shift).
    Concat and Split part channels into streams of their own. Queries that are contracted with keys
    are a stream as well, which has a `pair`.

    goal: `permute` finds what an order of the channels concerns, which passes every elementwise op,
    norms and depthwise convolutions: other streams, of more tensors, that take no other map.
    """
    search = _Search(goal)
    return [found for each in graphs(graph) for node in each for found in search.from_node(node)]


class _Search:
    """The places that walks have been to, so that each is gone to once."""

    def __init__(self, goal: Goal) -> None:
        self.goal: Goal = goal
        self.done: dict[tuple[int, Axes, bool], np.ndarray] = {}
        self.refused: dict[tuple[int, Axes, bool], str] = {}

    def from_node(self, node: Node) -> Iterator[Stream]:
        place = contraction(node)
        if place is not None:
            value, axis, _ = place
            held = sizes(value, (axis,))
            if held is None:
                held = [0]
            yield from self._from(value, Lane((axis,), np.arange(held[0])), None)
            return
        found = queries(node) or scores(node)
        if found is not None:
            yield from self._from(*found)

    def _from(self, value: Value, start: Lane, pair: Value | None) -> Iterator[Stream]:
        covered = self.done.get((id(value), start.axes, False))
        if covered is not None:
            index = np.where(covered, -1, start.index)
            start = Lane(start.axes, index)
        if not (start.index >= 0).any() and (covered is not None or len(start.index)):
            return
        walk = Walk(self.goal)
        try:
            walk.follow(value, start, self._known, write, read)
        except Cut as cut:
            seen: set[str | None] = set()
            for group in cut.groups:
                for found in self._from(value, _only(start, group), pair):
                    if found.blocked is None or found.blocked not in seen:
                        yield found
                    seen.add(found.blocked)
            return
        self._note(walk)
        axis = start.axes[-1]
        yield blocked(walk, value, axis, pair) if walk.blocked else stream(walk, value, start, pair)

    def _known(self, walk: Walk, value: Value, lane: Lane) -> None:
        """What leads to where another walk was refused is refused for the same reason."""
        reason = self.refused.get((id(value), lane.axes, lane.inverse))
        if reason is not None:
            places = self.done[id(value), lane.axes, lane.inverse]
            if (places & (lane.index >= 0)).any():
                walk.blocked = reason

    def _note(self, walk: Walk) -> None:
        crossed = walk.blocked is not None and walk.blocked.endswith(CROSSED)
        for key, (_, lane) in walk.members.items():
            been = self.done.get(key)
            here = lane.index >= 0
            self.done[key] = here if been is None else been | here
            if walk.blocked is not None and not crossed:
                self.refused[key] = walk.blocked


def _only(start: Lane, group: np.ndarray) -> Lane:
    return Lane(start.axes, np.where(np.isin(start.index, group), start.index, -1))
