"""Upsample becomes Resize; Resize's early coordinate rules are spelled out.

Opset 10 left the rounding of `nearest` open. ONNX Runtime and the official test data agree on
asymmetric coordinates, rounded down on an axis that grows and up on an axis that shrinks; since
11 one rounding serves all axes, so an axis-wise mixture takes two steps (nearest is separable).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ir.capture.adapters.context import Adapter, Context, attribute, set_input, source, take
from ir.errors import CaptureError


def upsample_9(node: ir.Node, ctx: Context) -> None:
    """Upsample-9: the scales are an input."""
    scales = take(node, "scales")
    if scales is not None:
        set_input(node, 1, ctx.constant(node, "scales", scales, np.float32))


def upsample_10(node: ir.Node, ctx: Context) -> None:
    """Upsample ends at 10; a Resize-10 with the same inputs means the same."""
    node.op_type = "Resize"


def resize_11(node: ir.Node, ctx: Context) -> None:
    """Resize-11: the coordinate rule and the rounding are attributes, roi comes before scales."""
    scales = node.inputs[1]
    assert scales is not None
    set_input(node, 1, None)
    set_input(node, 2, scales)
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
    if attribute(node, "mode", "nearest") != "nearest":
        return
    known = None if scales.const_value is None else scales.const_value.numpy()
    if known is not None and (known >= 1).all():
        node.attributes.add(ir.AttrString("nearest_mode", "floor"))
        return
    node.attributes.add(ir.AttrString("nearest_mode", "ceil"))
    if known is None or (known > 1).any():
        _grow_first(node, ctx, scales)


def _grow_first(node: ir.Node, ctx: Context, scales: ir.Value) -> None:
    """Put a Resize for the growing axes before `node`, which keeps the shrinking ones."""
    one = ctx.constant(node, "one", 1.0, np.float32)
    grow = ctx.before(node, "Max", [scales, one])
    grown = ctx.before(
        node,
        "Resize",
        [node.inputs[0], None, grow],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    set_input(node, 0, grown)
    set_input(node, 2, ctx.before(node, "Min", [scales, one]))


def resize_13(node: ir.Node, ctx: Context) -> None:
    """Resize-13: no 'tf_half_pixel_for_nn', and an unused input is left out, not empty."""
    for index in (1, 2, 3):
        value = source(node, index)
        if value is not None and value.const_value is not None and value.const_value.size == 0:
            node.replace_input_with(index, None)
    if source(node, 3) is not None and source(node, 2) is not None:
        _drop_empty_scales(node)
    if attribute(node, "coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        _half_pixel(node)


def _drop_empty_scales(node: ir.Node) -> None:
    """With sizes given, opset 11 demands an empty tensor of scales, if only at run time."""
    node.replace_input_with(2, None)


def _half_pixel(node: ir.Node) -> None:
    """u = (x + 0.5) / scale is half_pixel's coordinate plus 0.5, so the rounding moves by a half.

    floor(u) = round_prefer_ceil(u - 0.5); ceil(u - 0.5) = round_prefer_floor(u).
    """
    rounding = attribute(node, "nearest_mode", "round_prefer_floor")
    same = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}.get(rounding)
    if attribute(node, "mode", "nearest") != "nearest" or same is None:
        raise CaptureError(
            "coordinate_transformation_mode 'tf_half_pixel_for_nn' has no equal after opset 12 "
            f"with mode '{attribute(node, 'mode', 'nearest')}' and nearest_mode '{rounding}'",
            at=node,
            hint="export the model again with 'half_pixel'",
        )
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "half_pixel"))
    node.attributes.add(ir.AttrString("nearest_mode", same))


TABLE: dict[tuple[str, int], Adapter] = {
    ("Upsample", 9): upsample_9,
    ("Upsample", 10): upsample_10,
    ("Resize", 11): resize_11,
    ("Resize", 13): resize_13,
}
