"""Streams and their ends: which constants write the channels, and which contract over them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, attribute, constant, rank, readers

from .lanes import KEEPS

Role = Literal["weight", "bias"]
SIZES = ("Shape", "Size")
"""Ops that see no numbers."""


@dataclass(frozen=True, eq=False)
class Port:
    """A constant that a map of the stream folds into.

    tensor's axis runs over the stream's channels; where the tensor holds other channels as well (q
    and k beside v, shift beside gate), over its places part[0] up to, not including, part[1].
    A scale s divides the tensors of the writers and multiplies those of the readers; a shift moves
    the first bias behind each of the writers' weights.
    """

    node: Node
    tensor: Value
    axis: int
    role: Role
    part: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Stream:
    """One activation whose channels are written by some constants and contracted by others.

    value:   the activation the readers see first; axis: its channel axis
    writers: gains, biases and weights that set a channel (all of them take part in a fold)
    readers: weights of the linear layers that contract over the channels
    maps:    which of `scale` (diagonal, positive), `shift` and `permute` can be folded exactly
    blocked: why none can, or None
    values:  every value between writers and readers: a map changes what they mean
    biases:  the writers that a shift goes into; none where it cannot be folded
    """

    value: Value
    axis: int
    writers: tuple[Port, ...]
    readers: tuple[Port, ...]
    maps: frozenset[str]
    blocked: str | None = None
    values: tuple[Value, ...] = ()
    biases: tuple[Port, ...] = ()


def contraction(node: Node) -> tuple[Value, int, Port] | None:
    """(activation, its channel axis, weight port) of a linear layer with a constant weight."""
    if not is_op(node, "MatMul", "Gemm", "Conv"):
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
    if attribute(node, "group", 1) == 1:
        return x, 1, Port(node, w, 1, "weight")
    depthwise = shapes.dims(w)[1] == 1 and shapes.dims(x)[1] == attribute(node, "group", 1)  # pyright: ignore
    return (x, 1, Port(node, w, 0, "weight")) if depthwise else None


def written(node: Node) -> tuple[int, int]:
    """(channel axis of the output, channel axis of the weight) of a linear layer."""
    size, w = rank(node.outputs[0]) or 0, node.inputs[1]
    if node.op_type == "Conv":
        return 1, 0
    if node.op_type == "Gemm":
        return 1, 0 if attribute(node, "transB", 0) else 1
    return size - 1, (rank(w) or 2) - 1


def first_biases(writers: Iterable[Port]) -> tuple[Port, ...]:
    """For every weight the first bias behind it, each once; none when a weight lacks one."""
    biases = {id(p.node): p for p in writers if p.role == "bias"}
    found: dict[int, Port] = {}
    for port in writers:
        if port.role == "weight":
            ends = [*_until(port.node, biases)]
            if not ends or ends[-1] is None:
                return ()
            found[id(ends[-1])] = biases[id(ends[-1])]
    return (*found.values(),)


def _until(node: Node | None, biases: Container[int]) -> Iterator[Node | None]:
    """The node and the only reader of each in turn, up to one with a bias; None: there is none."""
    while node is not None:
        yield node
        if id(node) in biases:
            return
        after = {id(n): n for v in node.outputs for n, _ in readers(v) if n.op_type not in SIZES}
        node = next(iter(after.values())) if len(after) == 1 else None
        if not is_op(node, *KEEPS, "Split", "Slice", "Add"):
            yield None
            return


def unshifted(stream: Stream) -> list[Value]:
    """The values between the weights that write a stream and the biases that take a shift."""
    biases = {id(p.node) for p in stream.biases}
    weights = [p.node for p in stream.writers if p.role == "weight"]
    ways = [n for start in weights for n in _until(start, biases) if n is not None]
    return [v for node in ways if id(node) not in biases for v in node.outputs]
