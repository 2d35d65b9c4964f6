"""Streams that a matrix may map: x @ M where x is written, and its inverse where x is read."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ir.analysis import shapes
from ir.analysis.shapes import Dim
from ir.errors import describe
from ir.graph import Node, Value, array, attribute, constant, rank

from .vectors import Vectors, fitting


@dataclass(frozen=True)
class MatrixPort:
    """A constant that the matrix is folded into: input `index` of a node.

    axis, counted from the end, runs over `length` places, of which part[0] up to, not including,
    part[1] (or all) hold vectors of `size` channels, one behind the other. Where the constant has
    one number for them all, or lacks the axis, it is spread over it first.
    """

    node: Node
    index: int
    axis: int
    length: int
    size: int
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class Edge:
    """A place where the matrix is not folded: `node` reads (or, without one, something unmapped
    makes) a value that holds the vectors, and why. The matrix or its inverse can stand there."""

    value: Value
    vectors: Vectors
    node: Node | None
    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class MatrixStream:
    """Values whose vectors of `size` channels one matrix maps.

    writers: constants that y @ M is folded into: tables, weights, biases, positions, tokens
    readers: weights of the layers that contract over the channels; they take the inverse
    norms:   RMSNormalization on the way, which any orthogonal matrix passes; for a stream whose
             mean is taken away, the LayerNormalization that end it
    pairs:   products of two of its values over the channels (q k): orthogonal matrices only
    entries: edges where the vectors come in unmapped; exits: where they go out
    uses:    (node, index) of every use of an entry's value that takes the mapped one
    blocked: why no matrix can be folded, or None; entries and exits are reasons, too
    """

    value: Value
    size: int
    writers: tuple[MatrixPort, ...]
    readers: tuple[MatrixPort, ...]
    norms: tuple[Node, ...]
    pairs: tuple[Node, ...]
    entries: tuple[Edge, ...]
    exits: tuple[Edge, ...]
    uses: dict[int, tuple[tuple[Node, int], ...]]
    values: tuple[Value, ...]
    stopped: str | None = None

    @property
    def blocked(self) -> str | None:
        edges = [*self.entries, *self.exits]
        return self.stopped or (edges[0].reason if edges else None)


@dataclass
class MatrixWalk:
    """Collects the values that carry one matrix. `centred`: the map takes the mean away, which
    LayerNormalization does not see and everything else does."""

    size: int
    centred: bool
    members: dict[int, tuple[Value, Vectors]] = field(default_factory=dict)
    writers: dict[tuple, MatrixPort] = field(default_factory=dict)
    readers: dict[tuple, MatrixPort] = field(default_factory=dict)
    norms: dict[int, Node] = field(default_factory=dict)
    pairs: dict[int, tuple[Node, set[int]]] = field(default_factory=dict)
    entries: list[Edge] = field(default_factory=list)
    exits: list[Edge] = field(default_factory=list)
    uses: dict[int, list[tuple[Node, int]]] = field(default_factory=dict)
    stopped: str | None = None
    pending: deque[tuple[Value, Vectors]] = field(default_factory=deque)

    def add(self, value: Value, vectors: Vectors) -> None:
        """Take a value in, once; the walk goes on from it."""
        known = self.members.get(id(value))
        if known is None:
            self.members[id(value)] = (value, vectors)
            self.pending.append((value, vectors))
        elif known[1] != vectors:
            self.stop(f"%{value.name} carries the channels in two ways")

    def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason

    def write_to(self, node: Node, index: int, vectors: Vectors, size: int, length: Dim) -> None:
        """A constant operand: its axis counted from the end of a value of rank `size`."""
        tensor = constant(node.inputs[index])
        if not isinstance(length, int):
            self.stop(f"{describe(node)} holds a constant over an axis of unknown length")
            return
        if tensor is None or not tensor.dtype.is_floating_point():
            self.stop(f"{describe(node)} holds a constant that is not floating-point")
            return
        port = MatrixPort(node, index, vectors.axis - size, length, self.size, vectors.part)
        self.writers.setdefault((id(node), index, vectors), port)

    def read_by(self, node: Node, index: int, axis: int, vectors: Vectors) -> None:
        weight = node.inputs[index]
        dims = shapes.dims(weight)
        place = Vectors(axis, vectors.size, vectors.part)
        length = None if dims is None else dims[axis]
        if dims is None or not isinstance(length, int) or not fitting(weight, place):
            self.stop(f"{describe(node)} has a weight that the channels do not fill")
            return
        port = MatrixPort(node, index, axis - len(dims), length, self.size, vectors.part)
        self.readers.setdefault((id(node), index, vectors), port)

    def enter(self, value: Value, vectors: Vectors, reason: str) -> None:
        self.entries.append(Edge(value, vectors, None, -1, reason))
        self.uses.setdefault(id(value), [])

    def leave(self, edge: Edge) -> None:
        """A reader that does not undo the matrix. Of an entry's value it keeps the unmapped one."""
        if id(edge.value) not in self.uses:
            self.exits.append(edge)

    def stream(self, value: Value) -> MatrixStream:
        for node, found in self.pairs.values():
            if found != {0, 1}:
                self.stop(f"{describe(node)} contracts the channels with others")
        return MatrixStream(
            value, self.size, (*self.writers.values(),), (*self.readers.values(),),
            (*self.norms.values(),), tuple(n for n, _ in self.pairs.values()),
            (*self.entries,), (*self.exits,), {k: (*v,) for k, v in self.uses.items()},
            tuple(v for v, _ in self.members.values()), self.stopped,
        )  # fmt: skip


def norm_refusal(node: Node, vectors: Vectors, centred: bool) -> str:
    """Why a norm that reads the vectors does not let the map pass, or ''."""
    size = rank(node.inputs[0]) or 0
    axis = int(attribute(node, "axis", -1)) % max(size, 1)
    dims = shapes.dims(node.inputs[0]) or ()
    if vectors.axis != size - 1 or axis != size - 1 or dims[-1:] != (vectors.size,):
        return "normalizes other channels than these alone"
    if centred:
        return "" if node.op_type == "LayerNormalization" else "sees the mean of the channels"
    if node.op_type == "LayerNormalization":
        return "subtracts the mean of the channels"
    gain = array(node.inputs[1])
    if gain is None:
        return "has a computed gain"
    return "" if np.all(gain == gain.reshape(-1)[0]) else "has a gain that differs between channels"
