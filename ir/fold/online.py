"""Maps that stay in the graph: where a stream comes in from, or goes to, what none folds into."""

from __future__ import annotations

import numpy as np
import onnx_ir

from ir.analysis.rotations import Edge, MatrixPort, MatrixStream
from ir.edit import Edit
from ir.graph import Value, rank

from .matrix import Map


def online_refusal(stream: MatrixStream, limit: int) -> str:
    """Why the stream's map cannot be folded with at most `limit` maps left in the graph, or ''."""
    edges = [*_once(stream.entries), *_once(stream.exits)]
    if stream.stopped:
        return stream.stopped
    if len(edges) > limit:
        return edges[0].reason + (f" (first of {len(edges)} such places)" if edges[1:] else "")
    for edge in edges:
        if _side(edge) is None or not _placeable(edge.value):
            return f"{edge.reason}, and its channels are not the last axis or the one before"
    return ""


def put_online(
    stream: MatrixStream, each: Map, edit: Edit
) -> tuple[list[MatrixPort], list[MatrixPort]]:
    """Map what comes in by products with M, and what goes out by products with its inverse.

    Before the map is folded (`fold_maps`): the values keep what they are called by. Gives the new
    constants as (writers, readers): after the identity, any map may be folded into them.
    """
    writers: list[MatrixPort] = []
    readers: list[MatrixPort] = []
    matrix = each.write(np.eye(stream.size))
    for edge in _once(stream.entries):
        mapped = _product(edge, matrix, "turned", edit)
        writers.append(_port(edge, mapped, reads=False))
        for node, index in stream.uses[id(edge.value)]:
            edit.set_input(node, index, mapped)
    if not stream.exits:
        return writers, readers
    assert each.read is not None
    inverse = each.read(np.eye(stream.size)).T
    back: dict[int, Value] = {}
    for edge in _once(stream.exits):
        back[id(edge.value)] = _product(edge, inverse, "back", edit)
        readers.append(_port(edge, back[id(edge.value)], reads=True))
    for edge in stream.exits:
        if edge.node is not None:
            edit.set_input(edge.node, edge.index, back[id(edge.value)])
    for edge in _once(stream.exits):
        if edge.value.is_graph_output():
            edit.output_instead(edge.value, back[id(edge.value)])
        else:
            edit.take_name(edge.value, back[id(edge.value)])
    return writers, readers


def subtract_mean(stream: MatrixStream, edit: Edit) -> None:
    """Take the mean of the channels away from what comes in."""
    for edge in _once(stream.entries):
        value = edge.value
        axes = edit.constant(np.array([edge.vectors.axis]), f"{value.name}.axis")
        name = f"{value.name}.mean"
        mean = edit.node("ReduceMean", [value, axes], like=name, behind=value)
        shape = list(value.shape or ())
        shape[edge.vectors.axis] = 1
        mean.outputs[0].type, mean.outputs[0].shape = value.type, onnx_ir.Shape(shape)
        sub = edit.node("Sub", [value, mean.outputs[0]], like=f"{value.name}.centred", after=mean)
        sub.outputs[0].type, sub.outputs[0].shape = value.type, value.shape
        for node, index in stream.uses[id(value)]:
            edit.set_input(node, index, sub.outputs[0])


def _once(edges: tuple[Edge, ...]) -> list[Edge]:
    return list({id(edge.value): edge for edge in edges}.values())


def _side(edge: Edge) -> str | None:
    """On which side of the value a matrix has to stand for it to act on whole vectors."""
    axes, v = rank(edge.value) or 0, edge.vectors
    length = edge.value.shape[v.axis] if edge.value.shape is not None else None
    if length != v.size or v.part is not None or axes < 2:
        return None
    return {axes - 1: "right", axes - 2: "left"}.get(v.axis)


def _port(edge: Edge, product: Value, *, reads: bool) -> MatrixPort:
    """The matrix of a product as a constant that writes the vectors, or that contracts them."""
    node, size = product.producer(), edge.vectors.size
    assert node is not None
    left = _side(edge) == "left"
    return MatrixPort(node, 0 if left else 1, -1 if left == reads else -2, size, size)


def _placeable(value: Value) -> bool:
    """Whether a node that reads the value can stand behind it: an initializer has no place."""
    return value.producer() is not None or value.is_graph_input()


def _product(edge: Edge, matrix: np.ndarray, what: str, edit: Edit) -> Value:
    value = edge.value
    assert value.dtype is not None
    left = _side(edge) == "left"
    numbers = (matrix.T if left else matrix).astype(value.dtype.numpy())
    held = edit.constant(numbers, f"{value.name}.matrix", at=value.producer())
    inputs = [held, value] if left else [value, held]
    made = edit.node("MatMul", inputs, like=f"{value.name}.{what}", behind=value).outputs[0]
    made.type, made.shape = value.type, value.shape
    return made
