"""Attributes that became inputs: Slice, Pad, Clip, TopK, Split, Squeeze, Reduce*, DFT, ..."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ir.capture.adapters.context import (
    Adapter,
    Context,
    attribute,
    is_used,
    set_input,
    source,
    take,
)

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


def slice_10(node: ir.Node, ctx: Context) -> None:
    """Slice-10: starts, ends and axes are inputs."""
    set_input(node, 1, ctx.constant(node, "starts", take(node, "starts")))
    set_input(node, 2, ctx.constant(node, "ends", take(node, "ends")))
    axes = take(node, "axes")
    if axes is not None:
        set_input(node, 3, ctx.constant(node, "axes", axes))


def pad_11(node: ir.Node, ctx: Context) -> None:
    """Pad-11: pads and the padding value are inputs."""
    set_input(node, 1, ctx.constant(node, "pads", take(node, "pads")))
    value = take(node, "value", 0.0)
    if value:
        set_input(node, 2, _like_data(node, ctx, "value", value))


def clip_11(node: ir.Node, ctx: Context) -> None:
    """Clip-11: both bounds are inputs of the data's type."""
    for index, name in ((1, "min"), (2, "max")):
        bound = take(node, name)
        if bound is not None:
            set_input(node, index, _like_data(node, ctx, name, bound))


def _like_data(node: ir.Node, ctx: Context, what: str, number: float) -> ir.Value:
    """A scalar of the type of the node's first input, cast at run time where that is unknown."""
    data = node.inputs[0]
    if data is not None and data.dtype is not None:
        with np.errstate(over="ignore"):  # -3.4e38 means "no bound" and is -inf as float16
            return ctx.constant(node, what, number, data.dtype.numpy())
    scalar = ctx.constant(node, what, number, np.float32)
    return ctx.before(node, "CastLike", [scalar, data])


def topk_10(node: ir.Node, ctx: Context) -> None:
    """TopK-10: k is an input."""
    set_input(node, 1, ctx.constant(node, "k", [take(node, "k")]))


def split_13(node: ir.Node, ctx: Context) -> None:
    """Split-13: the sizes are an input."""
    sizes = take(node, "split")
    if sizes is not None:
        set_input(node, 1, ctx.constant(node, "split", sizes))


def split_18(node: ir.Node, ctx: Context) -> None:
    """Split-18: without sizes, the number of (equal) parts is said."""
    if source(node, 1) is None:
        node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))


def axes_input(node: ir.Node, ctx: Context) -> None:
    """Squeeze-13, Unsqueeze-13, ReduceSum-13, other reductions-18: axes are an input.

    An empty list of axes to reduce or squeeze means what a missing one means.
    """
    axes = take(node, "axes")
    if axes or (axes is not None and node.op_type == "Unsqueeze"):
        set_input(node, 1, ctx.constant(node, "axes", axes))


def dropout_10(node: ir.Node, ctx: Context) -> None:
    """Dropout-10: the mask is boolean; before, it had the data's type."""
    if len(node.outputs) > 1 and is_used(node.outputs[1]):
        ctx.replace(node, 1, ctx.after(node, "CastLike", [node.outputs[1], node.inputs[0]]))
        node.outputs[1].type = ir.TensorType(ir.DataType.BOOL)


def dropout_12(node: ir.Node, ctx: Context) -> None:
    """Dropout-12: ratio is an input that matters in training only, which capture never keeps."""
    if "ratio" in node.attributes:
        del node.attributes["ratio"]


def dft_20(node: ir.Node, ctx: Context) -> None:
    """DFT-20: axis is an input, and its default moved from 1 to -2."""
    set_input(node, 2, ctx.constant(node, "axis", attribute(node, "axis", 1)))
    take(node, "axis")


TABLE: dict[tuple[str, int], Adapter] = {
    ("Slice", 10): slice_10,
    ("Pad", 11): pad_11,
    ("Clip", 11): clip_11,
    ("TopK", 10): topk_10,
    ("Split", 13): split_13,
    ("Split", 18): split_18,
    ("Squeeze", 13): axes_input,
    ("Unsqueeze", 13): axes_input,
    ("ReduceSum", 13): axes_input,
    ("Dropout", 10): dropout_10,
    ("Dropout", 12): dropout_12,
    ("DFT", 20): dft_20,
    **{(f"Reduce{kind}", 18): axes_input for kind in REDUCTIONS},
}
