"""The ops that a matrix over the channels passes, beside those that only move them."""

from __future__ import annotations

from ir.graph import Node, attribute

NORMS = ("LayerNormalization", "RMSNormalization")
SUMS = ("Add", "Sub", "Sum")
PRODUCTS = ("Mul", "Div")


def labels(node: Node) -> tuple[str, str, str] | None:
    """The labels of the two operands and of the output of an Einsum, where each names an axis."""
    equation = "".join(str(attribute(node, "equation", "")).split())
    operands, arrow, output = equation.partition("->")
    each = operands.split(",")
    plain = all(len(set(part)) == len(part) for part in (*each, output))
    if not arrow or len(each) != 2 or len(node.inputs) != 2 or "." in equation or not plain:
        return None
    return each[0], each[1], output
