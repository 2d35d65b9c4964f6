"""Streams and their ends: which constants write the channels, and which contract over them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, attribute, constant, rank, readers

from .lanes import KEEPS

Role = Literal["weight", "bias", "table"]
LINEAR = ("MatMul", "Gemm", "Conv", "ConvTranspose")
NORMS = (
    "LayerNormalization",
    "RMSNormalization",
    "BatchNormalization",
    "InstanceNormalization",
    "GroupNormalization",
)
SIZES = ("Shape", "Size")
"""Ops that see no numbers."""


@dataclass(frozen=True, eq=False)
class Port:
    """A constant that a map of the stream folds into.

    tensor's axis runs over the stream's channels: place i holds channel index[i], or none of them
    where that is -1 (q and k beside v, shift beside gate); without an index, channel i. Channels
    may come several times (heads that share one of the keys).
    A scale s divides the tensors of the writers and multiplies those of the readers (an `inverse`
    one, a divisor, the other way round); a shift moves the first bias behind each of the writers'
    weights, or the rows of a `table` themselves (an embedding, a class token).
    groups: of a convolution whose axis of input channels counts from 0 again in each.
    """

    node: Node
    tensor: Value
    axis: int
    role: Role
    input: int = 1
    index: np.ndarray | None = None
    groups: int = 1
    inverse: bool = False

    @property
    def part(self) -> tuple[int, int] | None:
        """The places that hold channels, from the first up to, not including, the last one's end;
        None: all of them."""
        if self.index is None or (self.index >= 0).all():
            return None
        held = np.flatnonzero(self.index >= 0)
        return int(held[0]), int(held[-1]) + 1

    def rows(self, data: np.ndarray) -> np.ndarray:
        """The tensor's numbers with its channels in front: [places, ...]."""
        if self.groups == 1:
            return np.moveaxis(data, self.axis, 0)
        apart = data.reshape(self.groups, -1, *data.shape[1:])
        return np.swapaxes(apart, 1, 2).reshape(-1, apart.shape[1], *data.shape[2:])

    def unrows(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """What `rows` was made of."""
        if self.groups == 1:
            return np.moveaxis(rows, 0, self.axis)
        apart = rows.reshape(self.groups, shape[1], -1, *shape[2:])
        return np.swapaxes(apart, 1, 2).reshape(shape)


@dataclass(frozen=True, eq=False)
class Stream:
    """One activation whose channels are written by some constants and contracted by others.

    value:    the activation the readers see first; axis: its channel axis
    writers:  gains, biases and weights that set a channel (all of them take part in a fold)
    readers:  weights of the linear layers that contract over the channels; for queries that keys
              contract with, what writes the keys
    maps:     which of `scale` (diagonal, positive), `shift` and `permute` can be folded exactly
    blocked:  why none can, or None
    values:   every value between writers and readers: a map changes what they mean
    biases:   the writers that a shift goes into; none where it cannot be folded
    channels: how many there are that can be chosen freely: what a map has one number for each of
    index:    which of them is at each place of the value's axis, -1: another stream's; None: each
              in turn. Heads of shared keys and values, and the pairs of a rotary embedding, have
              one in common
    span:     a permutation must leave each channel within its run of so many; 0: anywhere
    pair:     for queries that are contracted with keys, the keys; else None
    """

    value: Value
    axis: int
    writers: tuple[Port, ...]
    readers: tuple[Port, ...]
    maps: frozenset[str]
    blocked: str | None = None
    values: tuple[Value, ...] = ()
    biases: tuple[Port, ...] = ()
    channels: int = 0
    index: np.ndarray | None = None
    span: int = 0
    pair: Value | None = None


def contraction(node: Node) -> tuple[Value, int, Port] | None:
    """(activation, its channel axis, weight port) of a linear layer with a constant weight."""
    if not is_op(node, *LINEAR):
        return None
    x, w = node.inputs[:2]
    if x is None or w is None or constant(w) is None or constant(x) is not None:
        return None
    size = rank(x)
    if size is None:
        return None
    if node.op_type == "MatMul":
        w_rank = rank(w) or 0
        return (x, size - 1, Port(node, w, w_rank - 2, "weight")) if w_rank >= 2 else None
    if node.op_type == "Gemm":
        transposed = attribute(node, "transB", 0)
        axis = 0 if attribute(node, "transA", 0) else 1
        return x, axis, Port(node, w, 1 if transposed else 0, "weight")
    groups = attribute(node, "group", 1)
    if node.op_type == "ConvTranspose":
        return (x, 1, Port(node, w, 0, "weight")) if groups == 1 else None
    return x, 1, Port(node, w, 1, "weight", groups=groups)


def written(node: Node) -> tuple[int, int]:
    """(channel axis of the output, channel axis of the weight) of a linear layer."""
    size, w = rank(node.outputs[0]) or 0, node.inputs[1]
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1, 0 if node.op_type == "Conv" else 1
    if node.op_type == "Gemm":
        return 1, 0 if attribute(node, "transB", 0) else 1
    return size - 1, (rank(w) or 2) - 1


def depthwise(node: Node) -> bool:
    """Whether a convolution computes each channel from the same one alone."""
    shape, x = shapes.dims(node.inputs[1]), shapes.dims(node.inputs[0])
    groups = attribute(node, "group", 1)
    return bool(
        is_op(node, "Conv") and shape and x and shape[:2] == (groups, 1) and x[1] == groups > 1
    )


def first_biases(writers: Iterable[Port]) -> tuple[Port, ...]:
    """For every weight the first bias behind it, each once; none when a weight lacks one."""
    biases = {id(p.node): p for p in writers if p.role == "bias"}
    found: dict[int, Port] = {}
    for port in writers:
        if port.role == "table":
            found[id(port)] = port
        if port.role == "weight":
            end = [*_until(port.node, biases)][-1]
            if end is None:
                return ()
            found[id(end)] = biases[id(end)]
    return (*found.values(),)


def _until(node: Node | None, biases: Container[int]) -> Iterator[Node | None]:
    """The node and the only reader of each in turn, up to one with a bias; None: there is none."""
    while node is not None:
        yield node
        if id(node) in biases:
            return
        after = {id(n): n for v in node.outputs for n, _ in readers(v) if n.op_type not in SIZES}
        node = next(iter(after.values())) if len(after) == 1 else None
        if not is_op(node, *KEEPS, "Split", "Slice", "Add", "Sub"):
            yield None
            return


def unshifted(stream: Stream) -> list[Value]:
    """The values between the weights that write a stream and the biases that take a shift."""
    biases = {id(p.node) for p in stream.biases}
    weights = [p.node for p in stream.writers if p.role == "weight"]
    ways = [n for start in weights for n in _until(start, biases) if n is not None]
    return [v for node in ways if id(node) not in biases for v in node.outputs]
