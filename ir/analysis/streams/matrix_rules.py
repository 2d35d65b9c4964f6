"""How a matrix over the channels passes each op, backwards to what writes and on to what reads."""

from __future__ import annotations

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.errors import describe
from ir.graph import Node, Value, attribute, constant, rank, readers

from .matrix import Edge, MatrixStream, MatrixWalk, norm_refusal
from .ports import contraction, written
from .vectors import MOVES, Vectors, ahead, aligned, behind, fitting, one_for_all

NORMS = ("LayerNormalization", "RMSNormalization")
SUMS = ("Add", "Sub", "Sum")
PRODUCTS = ("Mul", "Div")


def matrix_stream(value: Value, vectors: Vectors, *, centred: bool = False) -> MatrixStream:
    """Everything that shares a matrix with the vectors of a value."""
    walk = MatrixWalk(vectors.size, centred)
    if fitting(value, vectors):
        walk.add(value, vectors)
    else:
        walk.stop(f"the number of channels of %{value.name} is not known")
    while walk.pending and walk.stopped is None:
        found, place = walk.pending.popleft()
        _write(walk, found, place)
        _read(walk, found, place)
    return walk.stream(value)


def _write(walk: MatrixWalk, value: Value, v: Vectors) -> None:
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
        walk.write_to(node, 0, found, rank(source) or 0, int(length))  # type: ignore[arg-type]
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
            walk.write_to(node, index, v, rank(output) or 0, int(length))  # type: ignore[arg-type]
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
            walk.write_to(node, index, v, size, int(length))  # type: ignore[arg-type]
        elif operand is not None:
            walk.add(operand, v)
    return ""


def _linear(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    weight, size = node.inputs[1], rank(node.outputs[0]) or 0
    if constant(weight) is None:
        return _weighted_sum(walk, node, v)
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
    walk.write_to(node, 1, place, rank(weight) or 0, int(length))  # type: ignore[arg-type]
    if bias is not None:
        last = Vectors(0, v.size, v.part) if node.op_type == "Conv" else v
        walk.write_to(node, 2, last, 1 if node.op_type == "Conv" else size, int(length))  # type: ignore
    return ""


def _weighted_sum(walk: MatrixWalk, node: Node, v: Vectors) -> str:
    """p @ v sums over tokens: every channel of v alike."""
    operand, size = node.inputs[1], rank(node.outputs[0]) or 0
    inner = rank(operand)
    if node.op_type != "MatMul" or operand is None or inner is None or v.axis != size - 1:
        return "contracts activations to these channels"
    walk.add(operand, Vectors(inner - 1, v.size, v.part))
    return ""


def _read(walk: MatrixWalk, value: Value, v: Vectors) -> None:
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
    if place is not None and index == 0:
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
    other, contracted = node.inputs[1 - index], mine - 2 if index == 1 else mine - 1
    paired = v.axis == contracted and v.part is None and constant(other) is None
    if walk.centred or not paired:
        return "contracts the channels with others"
    walk.pairs.setdefault(id(node), (node, set()))[1].add(index)
    return ""
