"""Backwards: what computes a value that carries a stream's channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.graph import Node, Value, attribute, constant, rank

from .lanes import KEEPS, PARTS, Lane, aligned, before, part_before
from .ports import Port, Role, written
from .walk import Step, Walk

NORMS = ("LayerNormalization", "RMSNormalization", "BatchNormalization")


def write(walk: Walk, value: Value, lane: Lane) -> Iterable[Step]:
    node = value.producer()
    if node is None:
        return walk.block(None, f"feeds %{value.name} from outside")
    if is_op(node, *KEEPS, *PARTS):
        return _passed(walk, node, value, lane)
    if is_op(node, "Add"):
        return _sum(walk, node, lane)
    if is_op(node, "Mul"):
        return _product(walk, node, lane)
    if is_op(node, "MatMul", "Gemm", "Conv"):
        return _linear(walk, node, lane)
    if is_op(node, *NORMS):
        return _norm(walk, node, lane)
    return walk.block(node, "computes the channels in a way no map passes")


def _passed(walk: Walk, node: Node, value: Value, lane: Lane) -> Iterable[Step]:
    source = node.inputs[0]
    found = part_before(node, value, lane) if is_op(node, *PARTS) else before(node, lane)
    if source is None or found is None:
        return walk.block(node, "mixes the channels with other axes")
    walk.keep(KEEPS.get(node.op_type, walk.maps))
    return [(source, found)]


def _sum(walk: Walk, node: Node, lane: Lane) -> Iterator[Step]:
    """A bias is a writer; a residual sum carries the map to both operands."""
    constants = [v for v in node.inputs if constant(v) is not None]
    if not constants:
        walk.keep({"scale", "permute"})
    for operand in node.inputs:
        if operand is None:
            continue
        if operand in constants:
            _port(walk, node, operand, lane, "bias")
            continue
        found = aligned(node.outputs[0], operand, lane)
        if found is None:
            walk.block(node, "adds one number to all channels")
        else:
            yield operand, found


def _port(walk: Walk, node: Node, tensor: Value, lane: Lane, role: Role) -> None:
    """Note a constant aligned at the right with the node's result."""
    size = rank(node.outputs[0])
    shape = shapes.dims(tensor)
    channels = shapes.dims(node.outputs[0])
    place = None if size is None or shape is None else lane.axes[0] - size + len(shape)
    if len(lane.axes) != 1 or shape is None or channels is None or place is None:
        walk.block(node, "holds a constant that spreads over split channels")
    elif place < 0 or shape[place] != channels[lane.axes[0]]:
        walk.block(node, "holds a constant that is one for all channels")
    else:
        walk.writers.append(Port(node, tensor, place, role, lane.part))


def _product(walk: Walk, node: Node, lane: Lane) -> Iterable[Step]:
    """A constant gain is a writer; of two activations one carries the scale: a norm's (its gain is
    a writer, as under the adaptive scale of a diffusion transformer), or a linear layer's."""
    first, second = node.inputs[:2]
    for gain, operand in ((first, second), (second, first)):
        if gain is not None and operand is not None and constant(gain) is not None:
            walk.keep({"scale"})
            _port(walk, node, gain, lane, "weight")
            return ()
    for source in (NORMS, ("MatMul", "Gemm", "Conv")):
        for operand in sorted((second, first), key=lambda v: -(rank(v) or 0)):
            found = aligned(node.outputs[0], operand, lane)
            if operand is not None and found is not None and _comes_from(operand, source):
                walk.keep({"scale"})
                return [(operand, found)]
    return walk.block(node, "multiplies two activations, neither straight from a linear layer")


def _comes_from(value: Value, ops: tuple[str, ...]) -> bool:
    """Whether such an op with a constant weight computes the value, up to layout, bias and ReLU."""
    current: Value | None = value
    for _ in range(6):
        node = None if current is None else current.producer()
        if node is not None and is_op(node, *ops):
            return constant(node.inputs[1]) is not None
        if node is None or not is_op(node, *KEEPS, *PARTS, "Add"):
            return False
        data = node.inputs if node.op_type == "Add" else node.inputs[:1]
        current = next((v for v in data if v is not None and constant(v) is None), None)
    return False


def _linear(walk: Walk, node: Node, lane: Lane) -> Iterable[Step]:
    w = node.inputs[1]
    if node.op_type == "MatMul" and constant(w) is None:
        return _weighted_sum(walk, node, lane)
    if constant(w) is None or w is None or len(lane.axes) != 1:
        return walk.block(node, "has no constant weight for these channels")
    channel, axis = written(node)
    if lane.axes[0] != channel:
        return walk.block(node, "is read over another axis than its channels")
    if node.op_type == "Conv" and attribute(node, "group", 1) != 1:
        walk.keep({"scale", "shift"})
    walk.writers.append(Port(node, w, axis, "weight", lane.part))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return ()
    if constant(bias) is None:
        return walk.block(node, "has a computed bias")
    shape = shapes.dims(bias) or ()
    if shape[-1:] != (shapes.dims(w) or ())[axis : axis + 1]:
        return walk.block(node, "has a bias that is not one number per channel")
    if attribute(node, "beta", 1.0) == 0:
        return walk.block(node, "does not add its bias")
    walk.writers.append(Port(node, bias, len(shape) - 1, "bias", lane.part))
    return ()


def _weighted_sum(walk: Walk, node: Node, lane: Lane) -> Iterable[Step]:
    """probabilities @ v mixes tokens, not the channels of v."""
    v, size = node.inputs[1], rank(node.outputs[0])
    if v is None or size is None or rank(v) != size or size - 2 in lane.axes:
        return walk.block(node, "contracts activations over these channels")
    mine, result = shapes.dims(v), shapes.dims(node.outputs[0])
    heads = [a for a in lane.axes if a != size - 1]
    if mine is None or result is None or any(mine[a] != result[a] for a in heads):
        return walk.block(node, "shares heads of v between several of its own")
    if producer(node.inputs[0], "Softmax") is None:
        walk.keep({"scale", "permute"})  # only rows that sum to one pass a shift
    if len(lane.axes) > 1:
        walk.keep({"scale", "shift"})
    return [(v, lane)]


def _norm(walk: Walk, node: Node, lane: Lane) -> Iterable[Step]:
    size = rank(node.outputs[0]) or 0
    batch = node.op_type == "BatchNormalization"
    channel = 1 if batch else size - 1
    if lane.axes != (channel,) or not (batch or attribute(node, "axis", -1) in (-1, size - 1)):
        return walk.block(node, "normalises over another axis")
    walk.keep({"scale", "shift"})
    for tensor, role in zip(node.inputs[1:3], ("weight", "bias"), strict=False):
        if tensor is None:
            continue
        if constant(tensor) is None:
            walk.block(node, f"has a computed {'gain' if role == 'weight' else role}")
        elif rank(tensor) != 1:
            walk.block(node, "has a gain that is not one number per channel")
        else:
            walk.writers.append(Port(node, tensor, 0, role, lane.part))  # pyright: ignore[reportArgumentType]
    return ()
