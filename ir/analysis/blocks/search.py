"""The region that ends in one join: its entry, its nodes, what it reads and puts out on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ir.graph import Node, Value, constant, rank, readers

from .paths import LINEAR, shortcut, terms, way

Kind = Literal["residual", "skip", "gate"]
JOINS: dict[str, Kind] = {"Add": "residual", "Concat": "skip", "Mul": "gate"}


@dataclass(frozen=True, eq=False)
class Block:
    """A region of one graph.

    entry, exit: the value that comes in and the one that goes out
    nodes:       everything between, in graph order; no inner value is read outside
    side:        other computed values read inside (mask, rotary table, time embedding)
    taps:        inner values that the graph also puts out (the keys and values of a cache): what
                 replaces the block must still compute them
    kind:        residual: exit = shortcut(entry) + branch(entry), perhaps + something from the
                 side; skip: joined by Concat, gate: by Mul.
                 The shortcut is direct, or holds one linear op and norms, pooling, layout ops;
                 a branch holds at least one linear op
    depth:       how many blocks it lies in (0: outermost)
    """

    entry: Value
    exit: Value
    nodes: tuple[Node, ...]
    side: tuple[Value, ...]
    taps: tuple[Value, ...]
    kind: Kind
    depth: int = 0


class Search:
    """Looks for the blocks that end in one join of a graph.

    order: place of every node, by id; static: ids of the values that no data comes in through
    """

    def __init__(self, order: dict[int, int], static: set[int]) -> None:
        self.order = order
        self.static = static

    def position(self, value: Value) -> int:
        """Place of the producer in the graph; -1 for inputs and values of an outer graph."""
        return self.order.get(id(value.producer()), -1)

    def blocks(self, join: Node) -> list[Block]:
        """The block of a join, and those of its partial sums that start nearer to it.

        x + f(x) + skip, where skip comes from another level, is a block of x within the block of
        what x and skip both come from. Where that is nothing, skip is a side input.
        """
        found = [b for b in [self.block(join)] if b is not None]
        for inner in terms(join)[1]:
            block = self.block(inner)
            if block is not None and all(block.entry is not each.entry for each in found):
                found.append(block)
        if not found and join.op_type == "Add":
            found = [b for b in [self.block(join, beside=True)] if b is not None]
        return found

    def block(self, join: Node, *, beside: bool = False) -> Block | None:
        """`beside`: operands that do not come from the entry are allowed."""
        operands = [t for t in terms(join)[0] if id(t) not in self.static]
        if len(operands) < (3 if beside else 2):
            return None
        for entry, projected in self.entries(join, operands):
            if join.op_type == "Mul" and projected:
                continue
            found = self.region(join, entry, operands, beside)
            if found is not None:
                return found
        return None

    def entries(self, join: Node, operands: list[Value]) -> list[tuple[Value, bool]]:
        """Candidates for the entry, nearest first, and whether the shortcut holds a linear op."""
        found: dict[int, tuple[Value, bool]] = {}
        for term in operands:
            for value, projected in shortcut(term, self.static):
                if not projected or rank(value) == rank(join.outputs[0]):
                    found.setdefault(id(value), (value, projected))
        return sorted(found.values(), key=lambda c: -self.position(c[0]))

    def region(self, join: Node, entry: Value, operands: list[Value], beside: bool) -> Block | None:
        """The block between entry and join, or None where this is none."""
        reached = self.reached(self.behind(join, entry), entry)
        hanging = [t for t in operands if t is entry or id(t.producer()) in reached]
        if len(hanging) < (2 if beside else len(operands)):
            return None
        # a region without a linear op is plain arithmetic
        if not any(n.op_type in LINEAR for n in reached.values()):
            return None
        ways = [way(t, entry, self.static) for t in hanging]
        if None not in ways and False not in ways:  # linear ops side by side: nothing is skipped
            return None
        nodes = sorted(reached.values(), key=lambda n: self.order[id(n)])
        if self.leaks(nodes, join):
            return None
        side = {
            id(v): v
            for n in nodes
            for v in n.inputs
            if v is not None and v is not entry and constant(v) is None
            and id(v.producer()) not in reached and id(v) not in self.static
        }  # fmt: skip
        taps = (v for n in nodes if n is not join for v in n.outputs if v.is_graph_output())
        kind = JOINS[join.op_type]
        return Block(entry, join.outputs[0], tuple(nodes), (*side.values(),), tuple(taps), kind)

    def behind(self, join: Node, entry: Value) -> dict[int, Node]:
        """Nodes after the entry that the join depends on."""
        first = self.position(entry)
        found = {id(join): join}
        pending = [join]
        while pending:
            for value in pending.pop().inputs:
                node = None if value is None or value is entry else value.producer()
                if node is None or id(node) in found or self.order.get(id(node), -1) <= first:
                    continue
                found[id(node)] = node
                pending.append(node)
        return found

    def reached(self, behind: dict[int, Node], entry: Value) -> dict[int, Node]:
        """Those of `behind` that depend on the entry (shapes read from it do not count)."""
        found: dict[int, Node] = {}
        pending = [entry]
        while pending:
            for node, _ in readers(pending.pop()):
                if id(node) in behind and id(node) not in found and node.op_type != "Shape":
                    found[id(node)] = node
                    pending += node.outputs
        return found

    def leaks(self, nodes: list[Node], join: Node) -> bool:
        """Whether an inner value is read outside, for more than its shape."""
        inside = {id(n) for n in nodes}
        return any(
            id(n) not in inside and n.op_type != "Shape"
            for node in nodes
            if node is not join
            for value in node.outputs
            for n, _ in readers(value)
        )
