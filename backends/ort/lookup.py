"""Rows of a coded table: looked up as codes and decoded after, so no float table is in memory."""

from __future__ import annotations

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, rank
from ir.qtype import container

from .patterns import Codes
from .sites import LOOKUP, Refused, Site


def lower_lookup(edit: Edit, node: Node, table: Codes) -> Site:
    """Gather of rows of a coded table [V, D] -> Gather of codes, scales and zeros, then Cast, Sub,
    Mul on the rows: the arithmetic of the Decode, number for number."""
    qtype, indices = table.qtype, node.inputs[1]
    if attribute(node, "axis", 0) != 0 or (rank(table.codes) or 0) != 2 or not table.constant:
        raise Refused("it does not look up rows of a constant table")
    if not qtype.integer or container(qtype.element)[1:] != "8":
        raise Refused(f"ONNX Runtime looks up codes of 8 bits, not {qtype}")
    assert indices is not None
    result = node.outputs[0]
    rows = edit.node(
        "Gather", [table.codes, indices], like=f"{result.name}.codes", before=node, axis=0
    ).outputs[0]  # fmt: skip
    value = edit.node("Cast", [rows], like=f"{result.name}.steps", before=node, to=1).outputs[0]
    for op, part, like in (("Sub", table.zero, "centred"), ("Mul", table.scale, "float")):
        data = None if part is None else array(part)
        if data is not None:
            factor = _of_rows(edit, node, table, data.astype(np.float32), f"{result.name}.{like}")
            value = edit.node(op, [value, factor], like=f"{result.name}.{like}", before=node)
            value = value.outputs[0]
    edit.replace(result, value)
    edit.remove(node)
    return Site(node.name or "", node.op_type, LOOKUP, table.codes.name or "")


def _of_rows(edit: Edit, node: Node, table: Codes, data: np.ndarray, like: str) -> Value:
    """Scales or zeros of the rows that are looked up, as wide as the row, or as one number."""
    if data.ndim == 0:
        return edit.constant(data, f"{like}.all")
    if data.shape[0] == 1:  # the same for every row
        index = np.arange(int(table.codes.shape[1])) // _width(table)  # type: ignore[index,arg-type]
        row = data[0] if data.shape[1] == 1 else data[0][index]
        return edit.constant(row, f"{like}.row")
    if table.qtype.block[0] > 1:
        raise Refused(f"its rows share scales in blocks: {table.qtype}")
    part = edit.constant(data, f"{like}.rows")
    found = edit.node(
        "Gather", [part, node.inputs[1]], like=f"{like}.found", before=node, axis=0
    ).outputs[0]  # fmt: skip
    if data.shape[1] == 1:
        return found
    index = np.arange(int(table.codes.shape[1])) // _width(table)  # type: ignore[index,arg-type]
    places = edit.constant(index.astype(np.int64), f"{like}.places")
    return edit.node(
        "Gather", [found, places], like=f"{like}.whole", before=node, axis=-1
    ).outputs[0]  # fmt: skip


def _width(table: Codes) -> int:
    """Numbers of a row that share a scale."""
    return table.qtype.block[1] or int(table.codes.shape[1])  # type: ignore[index,arg-type]
