"""Sums, products and other ops that take each channel by itself."""

from __future__ import annotations

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, array, constant, rank

from .broadcast import narrowed, port_at, varying, widened
from .lanes import KEEPS, POSITIVE, Lane
from .pieces import PARTS
from .ports import LINEAR, NORMS
from .walk import CROSSED, Walk

UNARY = (
    *("Ceil", "Floor", "Round", "Sign", "Not", "IsInf", "IsNaN", "Reciprocal", "Sqrt"),
    *("Exp", "Log", "Erf", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid"),
    *("Gelu", "Swish", "HardSwish", "Mish", "Elu", "Celu", "Selu", "Clip", "ThresholdedRelu"),
    *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
)
"""Ops of one operand that no factor passes, but any order does."""
SUMS = ("Add", "Sub", "Sum", "Mean")
PRODUCTS = ("Mul", "Div")
OTHERS = (
    *("Max", "Min", "Pow", "Mod", "PRelu", "Where", "And", "Or", "Xor"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
"""Further ops of several operands that any order passes."""
CHECKED = (*SUMS, *PRODUCTS, *OTHERS)


def write_elementwise(walk: Walk, node: Node, lane: Lane) -> None:
    """Backwards: which operands carry what the result carries."""
    if walk.goal == "permute":
        return _all_operands(walk, node, lane)
    if is_op(node, *SUMS):
        return _sum(walk, node, lane)
    if is_op(node, *PRODUCTS):
        return _product(walk, node, lane)
    if is_op(node, "PRelu"):
        return _slopes(walk, node, lane)
    return walk.block(node, "computes the channels in a way no map passes")


def read_elementwise(walk: Walk, node: Node, place: int, value: Value, lane: Lane) -> None:
    """Forwards: what the result carries when one operand does."""
    result = node.outputs[0]
    found = widened(value, result, lane)
    if found is None:
        return walk.block(node, "spreads the channels")
    if walk.goal == "permute" or is_op(node, *SUMS) or (is_op(node, "PRelu") and place == 0):
        return walk.take(result, found, node)
    if not is_op(node, *PRODUCTS) or (node.op_type == "Div" and place == 1):
        return walk.block(node, "sees the channels unscaled")
    if sum(v is value for v in node.inputs) > 1 or walk.has_port(node, 1 - place):
        return walk.block(node, CROSSED)
    return _factor_of(walk, node, place, found)


def _factor_of(walk: Walk, node: Node, place: int, found: Lane) -> None:
    """One operand of a product carries the map, and the other must not."""
    walk.products[id(node)] = node
    beside = varying(node.inputs[1 - place], node.outputs[0], found.axes)
    walk.keep({"scale"} if beside != () else POSITIVE)
    walk.take(node.outputs[0], found, node)


def _all_operands(walk: Walk, node: Node, lane: Lane) -> None:
    for place, value in enumerate(node.inputs):
        if value is None:
            continue
        kept = varying(value, node.outputs[0], lane.axes)
        if kept is None:
            walk.block(node, "has an operand of unknown size")
        elif kept and constant(value) is not None:
            _port(walk, node, place, lane, kept)
        elif kept:
            found = narrowed(walk, value, node.outputs[0], lane, kept)
            walk.take(value, found, node)


def _port(walk: Walk, node: Node, place: int, lane: Lane, kept, *, inverse: bool = False) -> None:
    found = port_at(walk, node, place, lane, kept)
    if found is not None:
        role = "bias" if is_op(node, *SUMS) else "weight"
        walk.port(node, place, found[0], role, found[1], inverse=inverse)


def _sum(walk: Walk, node: Node, lane: Lane) -> None:
    """A bias is a writer; a residual sum carries the map to every operand."""
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    if len(computed) != 1 or (node.op_type == "Sub" and node.inputs[1] is computed[0]):
        walk.keep(POSITIVE)
    if node.op_type == "Mean":
        walk.keep(POSITIVE)
    for place, value in enumerate(node.inputs):
        if value is None:
            continue
        kept = varying(value, node.outputs[0], lane.axes)
        if kept is None or (not kept and not _zero(value)):
            walk.block(node, "adds one number to all channels")
        elif kept and constant(value) is not None:
            _port(walk, node, place, lane, kept)
        elif kept:
            walk.take(value, narrowed(walk, value, node.outputs[0], lane, kept), node)


def _zero(value: Value) -> bool:
    held = array(value)
    return held is not None and held.size == 1 and not held.any()


def _product(walk: Walk, node: Node, lane: Lane) -> None:
    """A constant gain is a writer; of two activations one carries the scale: a norm's (its gain is
    a writer, as under the adaptive scale of a diffusion transformer), or a linear layer's."""
    result = node.outputs[0]
    computed = [v for v in node.inputs if v is not None and constant(v) is None]
    for value in [v for v in computed if id(v) in walk.held]:  # met before
        return walk.take(value, narrowed(walk, value, result, lane, lane.axes), node)
    kept = [varying(v, result, lane.axes) for v in node.inputs]
    for place in (1, 0):
        if constant(node.inputs[place]) is not None:
            return _gain(walk, node, place, lane, kept[place])
    for place in _carriers(node, lane, kept):
        walk.products[id(node)] = node
        walk.keep({"scale"} if kept[1 - place] != () else POSITIVE)
        value = node.inputs[place]
        assert value is not None
        return walk.take(value, narrowed(walk, value, result, lane, lane.axes), node)
    return walk.block(node, "multiplies two activations, neither straight from a linear layer")


def _carriers(node: Node, lane: Lane, kept: list) -> list[int]:
    """The operands that can carry the map, the best one first."""
    places = [0] if node.op_type == "Div" else [1, 0]
    able = [p for p in places if kept[p] == lane.axes]
    if len(able) == 1 and kept[1 - able[0]] == ():
        return able
    able.sort(key=lambda p: -(rank(node.inputs[p]) or 0))
    return [p for ops in (NORMS, LINEAR) for p in able if _comes_from(node.inputs[p], ops)]


def _gain(walk: Walk, node: Node, place: int, lane: Lane, kept) -> None:
    value, result = node.inputs[1 - place], node.outputs[0]
    if kept is None or value is None or (node.op_type == "Div" and place == 0):
        return walk.block(node, "holds a constant of unknown use")
    if lane.axes[-1] in kept and not _varies_elsewhere(node.inputs[place], result, kept):
        walk.keep({"scale", "shift"})
        walk.products[id(node)] = node  # whoever reaches the operand as well is refused
        walk.held.add(id(node.inputs[place]))
        return _port(walk, node, place, lane, kept, inverse=node.op_type == "Div")
    walk.keep({"scale"} if kept else POSITIVE)
    return walk.take(value, narrowed(walk, value, result, lane, lane.axes), node)


def _varies_elsewhere(value: Value | None, result: Value, kept) -> bool:
    """Whether a constant is no gain but a table: of rotary angles, one row a token."""
    size, whole = rank(value) or 0, rank(result) or 0
    inner = {a - whole + size for a in kept}
    return any(d != 1 for i, d in enumerate(shapes.dims(value) or ()) if i not in inner)


def _comes_from(value: Value | None, ops: tuple[str, ...]) -> bool:
    """Whether such an op with a constant weight computes the value, up to layout, bias and ReLU."""
    current: Value | None = value
    for _ in range(8):
        node = None if current is None else current.producer()
        if node is not None and is_op(node, *ops):
            return constant(node.inputs[1]) is not None
        if node is None or not is_op(node, *KEEPS, *PARTS, "Concat", "Add"):
            return False
        data = node.inputs if node.op_type in ("Add", "Concat") else node.inputs[:1]
        current = next((v for v in data if v is not None and constant(v) is None), None)
    return False


def _slopes(walk: Walk, node: Node, lane: Lane) -> None:
    value, slopes = node.inputs[:2]
    kept = varying(slopes, node.outputs[0], lane.axes)
    walk.keep({"scale"} if kept != () else POSITIVE)
    if value is not None:
        walk.take(value, narrowed(walk, value, node.outputs[0], lane, lane.axes), node)
