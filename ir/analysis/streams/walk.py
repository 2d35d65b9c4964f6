"""From one value that layers contract to all writers and readers of its channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ir.graph import Node, Value, constant

from .lanes import ALL, Axes, Lane, sizes
from .ports import Port, Role

Goal = Literal["scale", "permute"]
Key = tuple[int, Axes, bool]
CROSSED = "multiplies two activations that both carry the channels"


class Cut(Exception):
    """The channels fall into groups that no op joins: each is a stream of its own."""

    def __init__(self, groups: list[np.ndarray]) -> None:
        super().__init__()
        self.groups = groups


@dataclass
class Walk:
    """Collects the values that carry one channel map; `write` and `read` say how it goes on.

    goal: `scale` looks for what carries a factor a channel, and says which of the other maps the
    same tensors take; `permute` looks for what carries an order of the channels, which more ops
    pass, and which then concerns more tensors.
    """

    goal: Goal = "scale"
    members: dict[Key, tuple[Value, Lane]] = field(default_factory=dict)
    ports: dict[tuple[int, int, int, bool], tuple[Port, bool]] = field(default_factory=dict)
    filled: set[tuple[int, int]] = field(default_factory=set)
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    products: dict[int, Node] = field(default_factory=dict)
    maps: set[str] = field(default_factory=lambda: set(ALL))
    inside: list[Value] = field(default_factory=list)
    runs: list[tuple[np.ndarray, int]] = field(default_factory=list)
    blocked: str | None = None
    held: set[int] = field(default_factory=set)
    pending: deque[Key] = field(default_factory=deque)

    def follow(self, value: Value, lane: Lane, *ways) -> None:
        """Take in everything that the ways lead to, each a function of (walk, value, lane)."""
        self.take(value, lane)
        while self.pending and self.blocked is None:
            value, lane = self.members[self.pending.popleft()]
            for way in ways:
                if self.blocked is None:
                    way(self, value, lane)
        for node in self.products.values():
            if sum(id(v) in self.held for v in node.inputs) > 1:
                self.block(node, CROSSED)

    def take(self, value: Value | None, lane: Lane | None, node: Node | None = None) -> None:
        """A value carries the map at this lane; None: where it does is not known."""
        fitted = None if value is None or lane is None else self._fitted(value, lane)
        if fitted is None or value is None:
            self.block(node, "mixes the channels with other axes")
            return
        key = (id(value), fitted.axes, fitted.inverse)
        known = self.members.get(key)
        if known is None:
            self.members[key] = (value, fitted)
            self.held.add(id(value))
            self.pending.append(key)
        elif known[1].index is not fitted.index:
            index, grown = self.merged(known[1].index, fitted.index)
            if grown:
                self.members[key] = (value, Lane(fitted.axes, index, fitted.inverse))
                self.pending.append(key)
        opposite = self.members.get((id(value), fitted.axes, not fitted.inverse))
        if opposite is not None and ((opposite[1].index >= 0) & (fitted.index >= 0)).any():
            self.block(node, "meets the channels and their inverse")

    def _fitted(self, value: Value, lane: Lane) -> Lane | None:
        """In the order of the axes, without those of one element, and spread over further ones
        that the value is known by."""
        held = sizes(value, lane.axes)
        if held is None or int(np.prod(held)) != len(lane.index):
            return None
        if list(lane.axes) != sorted(lane.axes):
            order = np.argsort(lane.axes)
            index = lane.index.reshape(held).transpose(order).ravel()
            lane = Lane(tuple(sorted(lane.axes)), index, lane.inverse)
            held = [held[i] for i in order]
        if 1 in held and len(held) > 1:
            kept = tuple(a for a, n in zip(lane.axes, held, strict=True) if n != 1)
            lane = Lane(kept or lane.axes[-1:], lane.index, lane.inverse)
        if (id(value), lane.axes, lane.inverse) not in self.members and id(value) in self.held:
            for number, axes, inverse in self.members:
                if (number, inverse) == (id(value), lane.inverse) and set(axes) > set(lane.axes):
                    return _spread(value, lane, axes)
        return lane

    def merged(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, bool]:
        """Both, and whether b names places that a does not; channels at one place are tied."""
        both = (a >= 0) & (b >= 0) & (a != b)
        if both.any():
            self.ties.append((a[both], b[both]))
        fresh = (a < 0) & (b >= 0)
        return (np.where(fresh, b, a), True) if fresh.any() else (a, False)

    def collapsed(self, index: np.ndarray, axis: int) -> np.ndarray:
        """Without one axis: channels along it are tied."""
        first, *others = np.moveaxis(index, axis, 0)
        for other in others:
            first, _ = self.merged(first, other)
        return first

    def reach(self, node: Node, place: int, lane: Lane | None) -> None:
        """An input of a node carries the map: a constant is written to, a value is followed."""
        value = node.inputs[place]
        if lane is None or constant(value) is None:
            return self.take(value, lane, node)
        held = sizes(value, lane.axes)
        axes = [a for a, n in zip(lane.axes, held or (), strict=False) if n != 1]
        if len(axes) != 1:
            return self.block(node, "holds a constant that spreads over split channels")
        return self.port(node, place, axes[0], "table", lane)

    def port(
        self, node: Node, place: int, axis: int, role: Role, lane: Lane,
        *, groups: int = 1, inverse: bool = False, reads: bool = False,
    ) -> None:  # fmt: skip
        """A constant that the map folds into."""
        tensor, index = node.inputs[place], lane.index
        assert tensor is not None
        key = (id(node), place, axis, reads != lane.inverse)
        known = self.ports.get(key)
        if known is not None and known[0].index is not None:
            index, _ = self.merged(known[0].index, index)
        found = Port(node, tensor, axis, role, place, index, groups, inverse)
        self.ports[key] = (found, reads != lane.inverse)
        self.filled.add((id(node), place))

    def has_port(self, node: Node, place: int) -> bool:
        return (id(node), place) in self.filled

    def block(self, node: Node | None, reason: str) -> None:
        """Note the first reason why no map can be folded; nothing follows."""
        where = f"{node.op_type} '{node.name or node.outputs[0].name}'" if node else "the graph"
        self.blocked = self.blocked or f"{where} {reason}"

    def keep(self, maps: Iterable[str]) -> None:
        self.maps &= set(maps)

    def within_runs(self, index: np.ndarray, width: int) -> None:
        """A permutation may not move a channel out of its run of `width` places."""
        self.runs.append((index, width))

    def cut(self, groups: Iterable[np.ndarray]) -> None:
        """Raise Cut unless the groups of channels (those of each index) are one."""
        sets = [set(index[index >= 0].tolist()) for index in groups]
        joined: list[set[int]] = []
        for each in filter(None, sets):
            apart = [other for other in joined if not other & each]
            joined = [*apart, each.union(*(o for o in joined if o & each))]
        if len(joined) > 1:
            raise Cut([np.array(sorted(each)) for each in joined])


def _spread(value: Value, lane: Lane, axes: Axes) -> Lane | None:
    """The lane along more axes: the same channels at every place of them."""
    held = sizes(value, axes)
    mine = sizes(value, lane.axes)
    if held is None or mine is None or [a for a in axes if a in lane.axes] != list(lane.axes):
        return None
    shape = [n if a in lane.axes else 1 for a, n in zip(axes, held, strict=True)]
    index = np.broadcast_to(lane.index.reshape(shape), held).ravel()
    return Lane(axes, index, lane.inverse)
