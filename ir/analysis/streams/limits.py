"""Which maps single nodes let pass, where their attributes or constants decide."""

from __future__ import annotations

from onnx_ir import DataType

from ir.analysis.idioms.base import is_op
from ir.graph import Node, attribute, scalar

from .lanes import ALL, KEEPS, POSITIVE


def limit(node: Node) -> frozenset[str] | None:
    """The maps that pass an op of one operand; None: it is no such op."""
    if is_op(node, "Clip"):
        return POSITIVE if _is_relu(node) else None
    if not is_op(node, *KEEPS):
        return None
    if node.op_type == "Cast":
        whole = not DataType(attribute(node, "to")).is_floating_point()
        return frozenset({"permute"}) if whole else ALL
    if node.op_type == "Pad":
        if attribute(node, "mode", "constant") != "constant":
            return ALL
        value = node.inputs[2] if len(node.inputs) > 2 else None
        return POSITIVE if value is None or scalar(value) == 0 else frozenset({"permute"})
    return KEEPS[node.op_type]


def _is_relu(node: Node) -> bool:
    """Clip from zero up, without an upper bound."""
    low, high = (*node.inputs[1:], None, None)[:2]
    return high is None and low is not None and scalar(low) == 0


def limit_reader(node: Node) -> frozenset[str]:
    """The maps that a linear layer takes at its input."""
    if node.op_type == "ConvTranspose":
        return POSITIVE  # it adds up a different number of taps at its edges
    if node.op_type == "Conv":
        pads = attribute(node, "pads", ()) or ()
        if any(pads) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return POSITIVE  # padding zeros are not shifted
    return ALL
