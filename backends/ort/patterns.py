"""What the lowering sees around a node: decoded inputs, constant parts, encoded outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir import ops
from ir.edit import Edit
from ir.graph import Node, Value, array, constant
from ir.qtype import QType


@dataclass(frozen=True)
class Codes:
    """Codes with what they mean: a Decode seen by its reader, or an Encode by its writer."""

    codes: Value
    scale: Value
    zero: Value | None
    qtype: QType

    @property
    def constant(self) -> bool:
        """Whether codes, scale and zero are all known now: a stored weight."""
        return constant(self.codes) is not None and self.static

    @property
    def static(self) -> bool:
        """Whether scale and zero are known now."""
        return array(self.scale) is not None and (self.zero is None or array(self.zero) is not None)


def decoded(value: Value | None) -> Codes | None:
    """What a value was decoded from, or None for a plain float."""
    return _codes(value.producer(), "Decode") if value is not None else None


def encoded(node: Node | None) -> Codes | None:
    """The codes that an Encode node writes (`codes` is its output), or None."""
    return _codes(node, "Encode")


def _codes(node: Node | None, op: str) -> Codes | None:
    if node is None or not ops.is_op(node, op):
        return None
    codes, scale = (node.inputs[0] if op == "Decode" else node.outputs[0]), node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    assert codes is not None
    assert scale is not None
    return Codes(codes, scale, zero, ops.qtype_of(node))


def byte_values(found: Codes | None) -> bool:
    """Whether these are activations that the integer kernels read: u8, one scale for the tensor."""
    return found is not None and found.qtype.element == "u8" and found.qtype.per_tensor


def only_reader(value: Value) -> Node | None:
    """The one node that reads a value, or None when there are more, or the value is an output."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def float_scale(edit: Edit, found: Codes) -> Value:
    """The scale of a whole tensor as a float32 scalar."""
    data = array(found.scale)
    if data is not None:
        return edit.constant(data.astype(np.float32).reshape(()), f"{found.scale.name}.f32")
    if found.qtype.scales[0] == "f32":
        return found.scale
    maker = found.scale.producer()
    like = f"{found.scale.name}.f32"
    return edit.node("Cast", [found.scale], like=like, after=maker, to=1).outputs[0]


def zero_code(edit: Edit, found: Codes) -> Value:
    """The zero point of a whole tensor of u8 codes as a scalar."""
    if found.zero is None:
        return edit.constant(np.zeros((), np.uint8), f"{found.codes.name}.zero")
    data = array(found.zero)
    return found.zero if data is None else edit.constant(data.reshape(()), f"{found.zero.name}.u8")
