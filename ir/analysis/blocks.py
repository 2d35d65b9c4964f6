"""Regions with one way in and one way out: residual blocks, skip levels, gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import onnx_ir

from ir.analysis import idioms
from ir.analysis.idioms.base import is_op
from ir.graph import Graph, Node, Value, constant, graphs, rank, readers

LINEAR = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "ConvInteger", "Attention"}
)
_JOINS = {"Add": "residual", "Concat": "skip", "Mul": "gate"}
_PROJECTION = frozenset(
    (  # noqa: SIM905
        "Identity Cast BatchNormalization InstanceNormalization GroupNormalization "
        "LayerNormalization RMSNormalization AveragePool MaxPool GlobalAveragePool Pad Resize "
        "Dropout Transpose Slice Reshape Squeeze Unsqueeze"
    ).split()
)
"""What a shortcut may pass besides one linear op."""
_SHORTCUT_LIMIT = 8

Kind = Literal["residual", "skip", "gate"]


@dataclass(frozen=True, eq=False)
class Block:
    """A region of one graph.

    entry, exit: the value that comes in and the one that goes out
    nodes:       everything between, in graph order; no inner value is read outside
    side:        other computed values read inside (mask, rotary table, time embedding)
    kind:        residual: exit = shortcut(entry) + branch(entry); skip: joined by Concat,
                 gate: by Mul.
                 The shortcut is direct, or holds one linear op and norms, pooling, layout ops;
                 a branch holds at least one linear op
    depth:       how many blocks it lies in (0: outermost)
    """

    entry: Value
    exit: Value
    nodes: tuple[Node, ...]
    side: tuple[Value, ...]
    kind: Kind
    depth: int = 0


def blocks(graph: Graph) -> list[Block]:
    """Every block of the graph, its bodies and its functions, outer blocks before what they hold.

    From each join the search goes back no further than the join's nearest entry, so the time is the
    number of nodes times the nesting.
    """
    inside = {id(n) for idiom in idioms.find(graph) for n in idiom.nodes}
    return [block for each in graphs(graph) for block in _of_graph(each, inside)]


def _of_graph(graph: onnx_ir.Graph, inside: set[int]) -> list[Block]:
    order = {id(node): i for i, node in enumerate(graph)}
    static = _static(graph)
    found = []
    for node in graph:
        if id(node) in inside or node.op_type not in _JOINS or not is_op(node, *_JOINS):
            continue
        if node.op_type == "Add" and _continues(node):
            continue
        block = _Search(order, static).block(node)
        if block is not None:
            found.append(block)
    return _nested(found, order)


def _static(graph: onnx_ir.Graph) -> set[int]:
    """Ids of values computed from constants and shapes alone: no data comes in through them."""
    found: set[int] = set()
    for node in graph:
        known = (v is None or id(v) in found or constant(v) is not None for v in node.inputs)
        if node.op_type in ("Shape", "Size", "Constant") or all(known):
            found.update(id(v) for v in node.outputs)
    return found


def _continues(node: Node) -> bool:
    """Whether a sum goes on in one more Add, which then is the join (x + a + b)."""
    uses = readers(node.outputs[0])
    return len(uses) == 1 and is_op(uses[0][0], "Add") and not node.outputs[0].is_graph_output()


def _terms(node: Node) -> list[Value]:
    """The computed operands of a join; a sum of sums is one sum."""
    terms: list[Value] = []
    pending = list(node.inputs)
    while pending:
        value = pending.pop()
        if value is None or constant(value) is not None:
            continue
        inner = value.producer()
        if node.op_type == "Add" and is_op(inner, "Add") and len(readers(value)) == 1:
            pending += inner.inputs  # pyright: ignore[reportOptionalMemberAccess]
        else:
            terms.append(value)
    return terms


class _Search:
    """Looks for the block that ends in one join."""

    def __init__(self, order: dict[int, int], static: set[int]) -> None:
        self.order = order
        self.static = static

    def position(self, value: Value) -> int:
        """Place of the producer in the graph; -1 for inputs and values of an outer graph."""
        return self.order.get(id(value.producer()), -1)

    def block(self, join: Node) -> Block | None:
        terms = [t for t in _terms(join) if id(t) not in self.static]
        if len(terms) < 2:
            return None
        for entry, projected in self.entries(join, terms):
            if join.op_type == "Mul" and projected:
                continue
            region = self.region(join, entry, terms)
            if region is not None:
                nodes, side = region
                kind: Kind = _JOINS[join.op_type]  # pyright: ignore[reportAssignmentType]
                return Block(entry, join.outputs[0], nodes, side, kind)
        return None

    def entries(self, join: Node, terms: list[Value]) -> list[tuple[Value, bool]]:
        """Candidates for the entry, nearest first, and whether the shortcut holds a linear op."""
        found: dict[int, tuple[Value, bool]] = {}
        for term in terms:
            for value, projected in _shortcut(term, self.static):
                if not projected or rank(value) == rank(join.outputs[0]):
                    found.setdefault(id(value), (value, projected))
        return sorted(found.values(), key=lambda c: -self.position(c[0]))

    def region(
        self, join: Node, entry: Value, terms: list[Value]
    ) -> tuple[tuple[Node, ...], tuple[Value, ...]] | None:
        """(nodes, side inputs) between entry and join, or None where this is no block."""
        behind = self.behind(join, entry)
        reached = self.reached(behind, entry)
        # every operand must hang on the entry; a region without a linear op is plain arithmetic
        if not all(t is entry or id(t.producer()) in reached for t in terms):
            return None
        if not any(n.op_type in LINEAR for n in reached.values()):
            return None
        ways = [_way(t, entry, self.static) for t in terms]
        if (
            None not in ways and False not in ways
        ):  # only linear ops side by side: nothing is skipped
            return None
        nodes = sorted(reached.values(), key=lambda n: self.order[id(n)])
        if not self.closed(nodes, join):
            return None
        side = {
            id(v): v
            for n in nodes
            for v in n.inputs
            if v is not None and v is not entry and constant(v) is None
            and id(v.producer()) not in reached and id(v) not in self.static
        }  # fmt: skip
        return tuple(nodes), tuple(side.values())

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

    def closed(self, nodes: list[Node], join: Node) -> bool:
        """Whether no inner value is read outside, save for its shape."""
        inside = {id(n) for n in nodes}
        return not any(
            value.is_graph_output()
            or any(id(n) not in inside and n.op_type != "Shape" for n, _ in readers(value))
            for node in nodes
            if node is not join
            for value in node.outputs
        )


def _shortcut(term: Value, static: set[int]) -> Iterator[tuple[Value, bool]]:
    """(value, whether a linear op was passed) along a shortcut that ends in `term`."""
    yield term, False
    projected, value = False, term
    for _ in range(_SHORTCUT_LIMIT):
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return
        inputs = [
            v for v in node.inputs if v is not None and constant(v) is None and id(v) not in static
        ]
        if node.op_type in LINEAR and not projected:
            projected = True
        elif node.op_type not in _PROJECTION and not (
            node.op_type in ("Add", "Mul") and len(inputs) == 1  # a bias or a gain
        ):
            return
        if len(inputs) != 1 and node.op_type not in _PROJECTION:
            return
        value = inputs[0] if inputs else value
        yield value, projected


def _way(term: Value, entry: Value, static: set[int]) -> bool | None:
    """Whether the shortcut from entry to the operand holds a linear op; None: it is a branch."""
    found = (projected for value, projected in _shortcut(term, static) if value is entry)
    return next(found, None)


def _nested(found: list[Block], order: dict[int, int]) -> list[Block]:
    """Outermost first, with depths; blocks that cross another one stay at its depth."""
    ordered = sorted(found, key=lambda b: (order[id(b.nodes[0])], -order[id(b.exit.producer())]))
    result: list[Block] = []
    open_ends: list[int] = []
    for block in ordered:
        start, end = order[id(block.nodes[0])], order[id(block.exit.producer())]
        while open_ends and (open_ends[-1] < start or open_ends[-1] < end):
            open_ends.pop()
        fields = (block.entry, block.exit, block.nodes, block.side, block.kind, len(open_ends))
        result.append(Block(*fields))
        open_ends.append(end)
    return result
