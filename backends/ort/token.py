"""MatMul and Gemm whose values have one scale a token: the integer kernel, and a product behind it.

ONNX Runtime's integer kernels take one scale for all of their values. Here they are given the codes
with the scale 1, and the rows of the result are multiplied by the tokens' own scales: a pass more
over the result, and over the values one more to find their scales.
"""

from __future__ import annotations

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, attribute, rank
from ir.qtype import QType

from .linear import bias_row, check_weight, stored_weight
from .patterns import Codes, encoded
from .sites import CONTRIB, Refused, Site

ELEMENT = "i8"
MIDDLE = 128
"""What is added to the codes, for the kernels read u8."""


def token_values(found: Codes | None) -> bool:
    """Whether these are i8 values with one scale for each index of all axes but the last."""
    return found is not None and is_token(found.qtype)


def is_token(qtype: QType) -> bool:
    """Whether a type of values is i8 with one float32 scale for every row of numbers."""
    plain = qtype.element == ELEMENT and qtype.zero is None and qtype.scales == ("f32",)
    *rows, last = qtype.block
    return plain and bool(rows) and last == 0 and set(rows) == {1}


def lower_token(edit: Edit, node: Node, x: Codes, weight: Codes) -> Site:
    """One MatMulIntegerToFloat and a Mul by the tokens' scales; returns the site.

    Raises Refused where no integer kernel runs the layer.
    """
    turned = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
    if (rank(weight.codes) or 0) != 2:
        raise Refused("its weight is not a matrix")
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0:
        raise Refused("Gemm with transA or alpha has no integer kernel")
    check_weight(weight, 0 if turned else 1)
    bias = bias_row(edit, node, int(weight.codes.shape[0 if turned else 1]))  # type: ignore[index,arg-type]
    codes, one, middle = _shifted(edit, x)
    stored = stored_weight(edit, weight, lambda codes: codes, turned=turned)
    name, decode = node.outputs[0].name, node.inputs[0].producer()  # type: ignore[union-attr]
    made = edit.node(
        "MatMulIntegerToFloat", [codes, stored.codes, one, stored.scale, middle, stored.zero],
        like=f"{name}.integer", domain=CONTRIB, before=node,
    )  # fmt: skip
    made = edit.node("Mul", [made.outputs[0], x.scale], like=f"{name}.scaled", before=node)
    if bias is not None:
        made = edit.node("Add", [made.outputs[0], bias], like=f"{name}.biased", before=node)
    edit.replace(node.outputs[0], made.outputs[0])
    edit.remove(node)
    assert decode is not None
    edit.remove_dead(decode)
    return Site(node.name or "", node.op_type, "MatMulIntegerToFloat", stored.codes.name or "")


def _shifted(edit: Edit, x: Codes) -> tuple[Value, Value, Value]:
    """The codes plus 128 as u8, made once for all readers, and the scale 1 and zero point 128.

    QuantizeLinear with scale 1 of x / scale rounds and saturates as Encode does.
    """
    encode = x.codes.producer()
    if encoded(encode) is None:
        raise Refused("its codes do not come from an Encode")
    assert encode is not None
    for use in x.scale.uses():
        if use.node.op_type == "Div" and use.node.inputs[0] is encode.inputs[0]:
            for reader in (u.node for u in use.node.outputs[0].uses()):
                if reader.op_type == "QuantizeLinear":
                    _, one, middle = reader.inputs
                    return reader.outputs[0], one, middle  # type: ignore[return-value]
    name = x.codes.name
    one = edit.constant(np.array(1, np.float32), f"{name}.one")
    middle = edit.constant(np.array(MIDDLE, np.uint8), f"{name}.middle")
    steps = edit.node("Div", [encode.inputs[0], x.scale], like=f"{name}.steps", before=encode)
    made = edit.node(
        "QuantizeLinear", [steps.outputs[0], one, middle], like=f"{name}.u8", before=encode
    )
    return made.outputs[0], one, middle
