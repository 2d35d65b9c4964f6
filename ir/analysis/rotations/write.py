"""How a matrix over the channels passes each op backwards, to what writes them."""

from __future__ import annotations

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.analysis.streams.ports import written
from ir.errors import describe
from ir.graph import Node, Value, attribute, constant, rank

from .ops import NORMS, PRODUCTS, SUMS, labels
from .vectors import MOVES, Vectors, aligned, behind, fitting, one_for_all
from .walk import MatrixWalk, norm_refusal


def write(walk: MatrixWalk, value: Value, v: Vectors) -> None:
    """What makes a value: constants take the matrix, activations carry it, others let none in."""
    node = value.producer()
    if node is None:
        walk.enter(value, v, f"%{value.name} comes from outside")
        return
    refusal = ""
    if is_op(node, "Gather") and constant(node.inputs[0]) is not None:
        refusal = _table(walk, node, v)
    elif is_op(node, *MOVES):
        refusal = _moved_from(walk, node, value, v)
    elif is_op(node, *SUMS):
        refusal = _operands(walk, node, range(len(node.inputs)), v)
    elif is_op(node, "Where"):
        inside = one_for_all(node.inputs[0], value, v.axis)
        refusal = _operands(walk, node, (1, 2), v) if inside else "chooses channel by channel"
    elif is_op(node, *PRODUCTS):
        refusal = _product(walk, node, v)
    elif is_op(node, "Concat"):
        refusal = _joined(walk, node, v)
    elif is_op(node, "MatMul", "Gemm", "Conv"):
        refusal = _linear(walk, node, v)
    elif is_op(node, "Einsum"):
        refusal = _einsum(walk, node, v)
    elif is_op(node, "RMSNormalization") and not walk.centred and node.inputs[0] is not None:
        refusal = norm_refusal(node, v, centred=False)
        if not refusal:
            walk.norms[id(node)] = node
            walk.add(node.inputs[0], v)
    elif is_op(node, *NORMS):
        refusal = "writes the sum that goes on from it, and no matrix passes its gain"
    else:
        refusal = "computes the channels in a way that no matrix passes"
    if refusal:
        walk.enter(value, v, f"{describe(node)} {refusal}")


def _table(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    """Rows of a constant table, as an embedding looks them up."""
    size, dims = rank(node.outputs[0]) or 0, shapes.dims(node.inputs[0])
    first = dims is not None and int(attribute(node, "axis", 0)) % len(dims) == 0
    if dims is None or not first or v.axis <= size - len(dims):
        return "looks up along its channels"
    length = dims[v.axis - size]
    if not isinstance(length, int):
        return "has a table of unknown size"
    walk.write_to(node, 0, v, size, length)
    return ""


def _moved_from(walk: MatrixWalk, node: Node, value: Value, v: Vectors) -> str:
    source = node.inputs[0]
    if constant(source) is not None and is_op(node, "Expand"):
        return _operands(walk, node, (0,), v)
    found = behind(node, value, v)
    if source is None or found is None:
        return "mixes the channels with other axes"
    if constant(source) is not None:
        length = (shapes.dims(source) or ())[found.axis]
        walk.write_to(node, 0, found, rank(source) or 0, length)
    else:
        walk.add(source, found)
    return ""


def _operands(walk: MatrixWalk, node: Node, which, v: Vectors) -> str:
    """Operands of a sum: each carries the matrix, or is a constant that takes it."""
    output, steps = node.outputs[0], []
    length = (shapes.dims(output) or ())[v.axis]
    for index in which:
        operand = node.inputs[index]
        found = None if operand is None else aligned(output, operand, v)
        if operand is None or constant(operand) is not None:
            continue
        if found is None:
            return "adds one number to all channels"
        steps.append((operand, found))
    for index in which:
        if node.inputs[index] is not None and constant(node.inputs[index]) is not None:
            walk.write_to(node, index, v, rank(output) or 0, length)
    for step in steps:
        walk.add(*step)
    return ""


def _product(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    """A factor for all channels of a vector passes; gains and gates that differ do not."""
    output = node.outputs[0]
    for index in (0, 1) if node.op_type == "Mul" else (0,):
        operand, factor = node.inputs[index], node.inputs[1 - index]
        found = aligned(output, operand, v)
        if operand is None or found is None or not one_for_all(factor, output, v.axis):
            continue
        return _operands(walk, node, (index,), v)
    return "scales every channel by its own factor"


def _joined(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    size = rank(node.outputs[0]) or 0
    if v.part is not None or not all(fitting(operand, v) for operand in node.inputs):
        return "joins other channels"
    for index, operand in enumerate(node.inputs):
        if operand is not None and constant(operand) is not None:
            length = (shapes.dims(operand) or ())[v.axis]
            walk.write_to(node, index, v, size, length)
        elif operand is not None:
            walk.add(operand, v)
    return ""


def _linear(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    weight, size = node.inputs[1], rank(node.outputs[0]) or 0
    if node.op_type == "MatMul" and (constant(weight) is None or v.axis == size - 2):
        return _weighted_sum(walk, node, v)
    if constant(weight) is None:
        return "has a computed weight"
    channel, axis = written(node)
    if node.op_type == "Conv" and attribute(node, "group", 1) != 1:
        return "convolves its channels in groups"
    if channel != v.axis or weight is None:
        return "is no layer that writes these channels"
    length = (shapes.dims(weight) or ())[axis]
    place = Vectors(axis, v.size, v.part)
    if not fitting(weight, place):
        return "has a weight that the channels do not fill"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and constant(bias) is None:
        return "has a computed bias"
    walk.write_to(node, 1, place, rank(weight) or 0, length)
    if bias is not None:
        last = Vectors(0, v.size, v.part) if node.op_type == "Conv" else v
        walk.write_to(node, 2, last, 1 if node.op_type == "Conv" else size, length)
    return ""


def _weighted_sum(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    """p @ v (or v @ p) sums over tokens: every channel of v alike."""
    size = rank(node.outputs[0]) or 0
    index = {size - 1: 1, size - 2: 0}.get(v.axis)
    operand = None if index is None else node.inputs[index]
    inner = rank(operand)
    if operand is None or inner is None or constant(operand) is not None:
        return "contracts activations to these channels"
    walk.add(operand, Vectors(inner + v.axis - size, v.size, v.part))
    return ""


def _einsum(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    found = labels(node)
    for index in (0, 1) if found is not None else ():
        mine, other, output = found[index], found[1 - index], found[2]  # type: ignore[index]
        label, operand = output[v.axis], node.inputs[index]
        if label in mine and label not in other and operand is not None:
            if constant(operand) is not None:
                break
            walk.add(operand, Vectors(mine.index(label), v.size, v.part))
            return ""
    return "contracts activations to these channels"
