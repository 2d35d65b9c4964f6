"""Where a graph can be rotated: its residual streams, the values of its attention, its norms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.graph import Graph, Node, Value, constant, graphs, rank, readers

from .matrix import MatrixStream
from .matrix_rules import NORMS, matrix_stream
from .ports import contraction, written
from .residual import Residual, residuals
from .vectors import MOVES, Vectors

_WEIGHTING = ("Cast", "Identity", "Dropout", "Mul", "Where")
"""Ops between a softmax and the product with v: dropout and masks of the probabilities."""


def residual_streams(graph: Graph) -> list[MatrixStream]:
    """What any orthogonal matrix may map as a whole (R1), longest first: every residual stream, and
    what shares its matrix. One that allows none says why (`blocked`)."""
    seeds = ((residual.values[0], _channels(residual)) for residual in residuals(graph))
    return list(_distinct(seeds, centred=False))


def attention_streams(graph: Graph) -> list[MatrixStream]:
    """The values that softmax attention sums, head by head (R2): from the layer that writes v to
    the one that reads the sum. All heads of a stream share a matrix, hence also those of a group
    that shares keys and values."""
    seeds = []
    for node in _nodes(graph):
        if is_op(node, "MatMul") and _weights(node.inputs[0]) and constant(node.inputs[1]) is None:
            output = node.outputs[0]
            seeds.append((output, _along(output, (rank(output) or 0) - 1)))
    return list(_distinct(seeds, centred=False))


def centred_streams(graph: Graph) -> list[MatrixStream]:
    """What LayerNormalization reads and nothing else that could tell: the mean over the channels
    may be taken away where they are written."""
    seeds = []
    for node in _nodes(graph):
        if is_op(node, "LayerNormalization") and node.inputs[0] is not None:
            value = node.inputs[0]
            seeds.append((value, _along(value, (rank(value) or 0) - 1)))
    return list(_distinct(seeds, centred=True))


def _nodes(graph: Graph) -> Iterator[Node]:
    for scope in graphs(graph):
        yield from scope


def _distinct(
    seeds: Iterable[tuple[Value, Vectors | None]], *, centred: bool
) -> Iterator[MatrixStream]:
    done: set[int] = set()
    for value, vectors in seeds:
        if id(value) in done or constant(value) is not None:
            continue
        found = matrix_stream(value, vectors or Vectors(-1, 1), centred=centred)
        done.update(id(v) for v in found.values)
        yield found


def _along(value: Value, axis: int) -> Vectors | None:
    dims = shapes.dims(value)
    size = dims[axis] if dims and 0 <= axis < len(dims) else None
    return Vectors(axis, size) if isinstance(size, int) else None


def _channels(residual: Residual) -> Vectors | None:
    """The channel axis of the first value: where norms and layers read it, or layers write it."""
    for value in residual.values:
        for node, index in readers(value):
            place = contraction(node)
            if index == 0 and (place is not None or is_op(node, *NORMS)):
                axis = place[1] if place is not None else (rank(value) or 0) - 1
                return _along(residual.values[0], axis)
    for value in residual.added:
        node = value.producer()
        while is_op(node, "Add", *MOVES) and node is not None:
            node = next((v.producer() for v in node.inputs if v and constant(v) is None), None)
        if is_op(node, "MatMul", "Gemm", "Conv") and node is not None:
            return _along(residual.values[0], written(node)[0])
    return None


def _weights(value: Value | None) -> bool:
    """Whether a value is what a Softmax gives, up to masks and dropout."""
    for _ in range(6):
        if producer(value, "Softmax") is not None:
            return True
        node = producer(value, *_WEIGHTING)
        if node is None:
            return False
        first = 1 if node.op_type == "Where" else 0
        data = [v for v in node.inputs[first:] if v is not None and constant(v) is None]
        value = data[0] if data else None
    return False
