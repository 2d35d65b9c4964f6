"""Changed names and defaults: Scatter, RoiAlign, GridSample."""

from __future__ import annotations

import onnx_ir as ir

from ir.capture.adapters.context import Adapter, Context, attribute


def scatter_11(node: ir.Node, ctx: Context) -> None:
    """Scatter ends at 11 and is called ScatterElements."""
    node.op_type = "ScatterElements"


def roi_align_16(node: ir.Node, ctx: Context) -> None:
    """RoiAlign-16 shifts by half a pixel unless told not to; before, there was no shift."""
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "output_half_pixel"))


def grid_sample_20(node: ir.Node, ctx: Context) -> None:
    """GridSample-20 calls its modes linear and cubic, for they now work in 3-D too."""
    mode: str = attribute(node, "mode", "bilinear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    node.attributes.add(ir.AttrString("mode", mode))


TABLE: dict[tuple[str, int], Adapter] = {
    ("Scatter", 11): scatter_11,
    ("RoiAlign", 16): roi_align_16,
    ("GridSample", 20): grid_sample_20,
}
