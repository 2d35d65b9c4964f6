"""From one reader of a stream to all of its writers and readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ir.graph import Node, Value

from .lanes import ALL, Lane
from .ports import Port, Stream, first_biases

Step = tuple[Value, Lane]


@dataclass
class Walk:
    """Collects the values that carry one channel map; `write` and `read` say how it goes on."""

    members: dict[tuple[int, Lane], Value] = field(default_factory=dict)
    writers: list[Port] = field(default_factory=list)
    readers: list[Port] = field(default_factory=list)
    maps: set[str] = field(default_factory=lambda: set(ALL))
    blocked: str | None = None

    def follow(self, start: Step, *ways) -> None:
        """Take in everything that the ways lead to, each a function of (walk, value, lane)."""
        pending = deque([start])
        while pending and self.blocked is None:
            value, lane = pending.popleft()
            if (id(value), lane) not in self.members:
                self.members[id(value), lane] = value
                for way in ways:
                    pending.extend(way(self, value, lane))

    def holds(self, value: Value, lane: Lane) -> bool:
        return (id(value), lane) in self.members

    def block(self, node: Node | None, reason: str) -> Iterable[Step]:
        """Note the first reason why no map can be folded; nothing follows."""
        where = f"{node.op_type} '{node.name or node.outputs[0].name}'" if node else "the graph"
        self.blocked = self.blocked or f"{where} {reason}"
        return ()

    def keep(self, maps: Iterable[str]) -> None:
        self.maps &= set(maps)

    def stream(self, value: Value, axis: int) -> Stream:
        maps = frozenset() if self.blocked else frozenset(self.maps)
        biases = first_biases(self.writers) if "shift" in maps else ()
        if not biases:
            maps -= {"shift"}
        values = {id(v): v for v in self.members.values()}
        return Stream(
            value,
            axis,
            (*self.writers,),
            (*self.readers,),
            maps,
            self.blocked,
            (*values.values(),),
            biases,
        )
