"""Scan-8 worked on batches; Scan-9 does not: the batch becomes an outer Scan."""

from __future__ import annotations

import onnx_ir as ir

from ir.capture.adapters.context import Adapter, Context, attribute, source
from ir.errors import CaptureError


def scan_9(node: ir.Node, ctx: Context) -> None:
    """Every input and output of Scan-8 has the batch in front, the sequence behind it.

    An outer Scan-9 takes one example at a time, with no state of its own; inside it a Scan-9
    runs the old body over the sequence. The outer one stacks all results along the batch.
    """
    if source(node, 0) is not None:
        raise CaptureError(
            "Scan of opset 8 with sequence_lens is not supported",
            at=node,
            hint="pad the sequences to one length and drop that input",
        )
    body = attribute(node, "body")
    scans = attribute(node, "num_scan_inputs")
    directions = attribute(node, "directions", [0] * scans)
    operands = node.inputs[1:]
    rows = [ir.Value(name=ctx.name(f"{node.outputs[0].name}.row")) for _ in operands]
    for row, operand in zip(rows, operands, strict=True):
        row.type = None if operand is None else operand.type
    inner = ir.node(
        "Scan",
        rows,
        attributes={
            "body": body,
            "num_scan_inputs": scans,
            "scan_input_directions": directions,
        },
        num_outputs=len(node.outputs),
        name=f"{node.name}.row",
    )
    for value, outer in zip(inner.outputs, node.outputs, strict=True):
        value.name = ctx.name(f"{outer.name or node.op_type}.row")
        value.type = outer.type
    wrapper = ir.Graph(rows, list(inner.outputs), nodes=[inner], name=f"{body.name}.batch")
    node.attributes.clear()
    node.attributes.add(ir.AttrGraph("body", wrapper))
    node.attributes.add(ir.AttrInt64("num_scan_inputs", len(rows)))
    for index, operand in enumerate(operands):
        node.replace_input_with(index, operand)
    node.resize_inputs(len(operands))


TABLE: dict[tuple[str, int], Adapter] = {("Scan", 9): scan_9}
