"""How a matrix over the channels passes each op forwards, to what reads them."""

from __future__ import annotations

from ir.analysis.idioms.base import is_op
from ir.analysis.streams.ports import contraction
from ir.errors import describe
from ir.graph import Node, Value, attribute, constant, rank, readers

from .ops import NORMS, PRODUCTS, SUMS, labels
from .vectors import MOVES, Vectors, ahead, aligned, fitting, one_for_all
from .walk import Edge, MatrixWalk, norm_refusal


def read(walk: MatrixWalk, value: Value, v: Vectors) -> None:
    """Who reads a value: each carries the matrix on, undoes it, or is an exit."""
    if value.is_graph_output():
        walk.leave(Edge(value, v, None, -1, f"the graph puts %{value.name} out"))
    for node, index in readers(value):
        if node.op_type in ("Shape", "Size"):
            continue
        refusal = _read_by(walk, node, index, value, v)
        if refusal:
            walk.leave(Edge(value, v, node, index, f"{describe(node)} {refusal}"))
        elif id(value) in walk.uses:
            walk.uses[id(value)].append((node, index))


def _read_by(walk: MatrixWalk, node: Node, index: int, value: Value, v: Vectors) -> str:
    output = node.outputs[0]
    place = contraction(node)
    mixes = is_op(node, "MatMul") and v.axis == (rank(value) or 0) - 2
    if place is not None and index == 0 and not mixes:
        return _contracted(walk, node, place[1], place[2].axis, v)
    if is_op(node, *NORMS) and index == 0:
        refusal = norm_refusal(node, v, walk.centred)
        if not refusal:
            walk.norms[id(node)] = node
            if not walk.centred:
                walk.add(output, v)
        return refusal
    if is_op(node, "MatMul"):
        return _activations(walk, node, index, v)
    if is_op(node, "Einsum"):
        return _contracts(walk, node, index, v)
    if is_op(node, *MOVES) and index == 0:
        return _moved_on(walk, node, v)
    if is_op(node, *SUMS) or (is_op(node, "Where") and index > 0):
        found = aligned(value, output, v)
        return _on(walk, output, found, "spreads the channels")
    if is_op(node, *PRODUCTS):
        found, factor = aligned(value, output, v), node.inputs[1 - index]
        alone = node.op_type == "Mul" or index == 0
        if found is None or not alone or not one_for_all(factor, output, found.axis):
            return "scales every channel by its own factor"
        return _on(walk, output, found, "")
    if is_op(node, "Concat"):
        whole = v.part is None and all(fitting(operand, v) for operand in node.inputs)
        return _on(walk, output, v if whole else None, "joins other channels")
    return "sees the channels as they are"


def _on(walk: MatrixWalk, output: Value, found: Vectors | None, refusal: str) -> str:
    if found is None or not fitting(output, found):
        return refusal or "leaves the number of channels open"
    walk.add(output, found)
    return ""


def _moved_on(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    found = list(ahead(node, v))
    if any(place is None for _, place in found):
        return "mixes the channels with other axes"
    for output, place in found:
        if place is not None and (output.uses() or output.is_graph_output()):
            walk.add(output, place)
    return ""


def _contracted(walk: MatrixWalk, node: Node, channel: int, axis: int, v: Vectors) -> str:
    if walk.centred:
        return "sees the mean of the channels"
    if node.op_type == "Conv" and attribute(node, "group", 1) != 1:
        return "convolves its channels in groups"
    if channel != v.axis:
        return "contracts over another axis"
    walk.read_by(node, 1, axis, v)
    return ""


def _activations(walk: MatrixWalk, node: Node, index: int, v: Vectors) -> str:
    """Of two activations: over tokens the matrix passes; over channels both must carry it."""
    output, mine = node.outputs[0], rank(node.inputs[index]) or 0
    kept = mine - 1 if index == 1 else mine - 2
    if v.axis == kept and mine >= 2:
        place = (rank(output) or 0) - (1 if index == 1 else 2)
        return _on(walk, output, Vectors(place, v.size, v.part), "leaves its rank open")
    return _pair(walk, node, index, v, v.axis == (mine - 2 if index == 1 else mine - 1))


def _pair(walk: MatrixWalk, node: Node, index: int, v: Vectors, contracted: bool) -> str:
    activations = constant(node.inputs[1 - index]) is None
    if walk.centred or v.part is not None or not contracted or not activations:
        return "contracts the channels with others"
    walk.pairs.setdefault(id(node), (node, set()))[1].add(index)
    return ""


def _contracts(walk: MatrixWalk, node: Node, index: int, v: Vectors) -> str:
    """An Einsum that reads the vectors: over tokens they pass, over channels both must carry."""
    found = labels(node)
    if found is None:
        return "sees the channels as they are"
    mine, other, output = found[index], found[1 - index], found[2]
    label = mine[v.axis]
    if label in output and label not in other:
        place = Vectors(output.index(label), v.size, v.part)
        return _on(walk, node.outputs[0], place, "leaves its rank open")
    return _pair(walk, node, index, v, label not in output)
