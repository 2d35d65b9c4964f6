"""Where a graph can be rotated: its residual streams, the values of its attention, its norms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.analysis.streams.ports import contraction, written
from ir.analysis.streams.residual import Residual, residuals
from ir.graph import Graph, Node, Value, constant, graphs, rank, readers

from .ops import NORMS, labels
from .read import read
from .vectors import MOVES, Vectors, fitting
from .walk import MatrixStream, MatrixWalk
from .write import write

_WEIGHTING = ("Cast", "Identity", "Dropout", "Mul", "Where", "Transpose")
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
        axis = _summed(node)
        if axis is not None:
            seeds.append((node.outputs[0], _along(node.outputs[0], axis)))
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


def matrix_stream(value: Value, vectors: Vectors, *, centred: bool = False) -> MatrixStream:
    """Everything that shares a matrix with the vectors of a value."""
    walk = MatrixWalk(vectors.size, centred)
    if fitting(value, vectors):
        walk.add(value, vectors)
    else:
        walk.stop(f"the number of channels of %{value.name} is not known")
    while walk.pending and walk.stopped is None:
        found, place = walk.pending.popleft()
        write(walk, found, place)
        read(walk, found, place)
    return walk.stream(value)


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


def _summed(node: Node) -> int | None:
    """The channel axis of what a node sums by the weights that a softmax gives, or None."""
    if not is_op(node, "MatMul", "Einsum") or len(node.inputs) != 2:
        return None
    if any(constant(v) is not None for v in node.inputs):
        return None
    size, found = rank(node.outputs[0]) or 0, labels(node) if node.op_type == "Einsum" else None
    for index in (0, 1):
        if not _weights(node.inputs[index]):
            continue
        if node.op_type == "MatMul":
            return size - 1 if index == 0 else size - 2
        if found is not None:
            own = [a for a, label in enumerate(found[2]) if label not in found[index]]
            return own[0] if len(own) == 1 else None
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
