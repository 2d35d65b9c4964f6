"""Softmax and its kin (flattening semantics before 13), BatchNormalization, GroupNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ir.capture.adapters.context import Adapter, Context, attribute, is_used, set_input, take
from ir.errors import CaptureError


def softmax_13(node: ir.Node, ctx: Context) -> None:
    """Before 13 the input was viewed as a matrix, split at `axis` (default 1), rows normalised.

    That is the newer meaning wherever every dimension behind `axis` is 1; otherwise the view is
    written out as Flatten and Reshape.
    """
    axis = attribute(node, "axis", 1)
    if axis == -1:
        return
    data = node.inputs[0]
    assert data is not None
    dims = None if data.shape is None else tuple(data.shape)
    if dims is not None and dims:
        axis = axis + len(dims) if axis < 0 else axis
        if all(dim == 1 for dim in dims[axis + 1 :]):
            node.attributes.add(ir.AttrInt64("axis", axis))
            return
    matrix = ctx.before(node, "Flatten", [data], axis=axis)
    shape = ctx.before(node, "Shape", [data])
    node.replace_input_with(0, matrix)
    node.attributes.add(ir.AttrInt64("axis", -1))
    ctx.replace(node, 0, ctx.after(node, "Reshape", [node.outputs[0], shape], allowzero=1))


def batch_normalization_9(node: ir.Node, ctx: Context) -> None:
    """BatchNormalization-9 has no `spatial=0` (statistics per activation): written out."""
    if take(node, "spatial", 1):
        return
    if any(is_used(value) for value in node.outputs[1:]):
        raise CaptureError(
            "BatchNormalization with spatial=0 in training mode is not supported",
            at=node,
            hint="export the model in evaluation mode",
        )
    x, scale, bias, mean, var = node.inputs[:5]
    epsilon = ctx.constant(node, "epsilon", attribute(node, "epsilon", 1e-5), np.float32)
    epsilon = ctx.before(node, "CastLike", [epsilon, x])
    deviation = ctx.before(node, "Sqrt", [ctx.before(node, "Add", [var, epsilon])])
    centred = ctx.before(node, "Sub", [x, mean])
    scaled = ctx.before(node, "Mul", [ctx.before(node, "Div", [centred, deviation]), scale])
    ctx.replace(node, 0, ctx.after(node, "Add", [scaled, bias]))
    ctx.graph.remove(node, safe=True)


def batch_normalization_14(node: ir.Node, ctx: Context) -> None:
    """BatchNormalization-14: more than one used output meant training; `saved_*` are gone."""
    if any(is_used(value) for value in node.outputs[3:]):
        raise CaptureError(
            "outputs saved_mean and saved_var of BatchNormalization ended with opset 13",
            at=node,
            hint="export the model in evaluation mode",
        )
    training = any(is_used(value) for value in node.outputs[1:])
    node.resize_outputs(min(len(node.outputs), 3) if training else 1)
    if training:
        node.attributes.add(ir.AttrInt64("training_mode", 1))


def group_normalization_21(node: ir.Node, ctx: Context) -> None:
    """GroupNormalization-21: scale and bias have one entry per channel, before one per group."""
    groups = attribute(node, "num_groups")
    data = node.inputs[0]
    assert data is not None
    channels = data.shape[1] if data.shape is not None and data.shape.rank() > 1 else None
    if isinstance(channels, int):
        repeat = ctx.constant(node, "repeat", [1, channels // groups])
    else:
        count = ctx.before(node, "Shape", [data], start=1, end=2)
        per_group = ctx.before(node, "Div", [count, ctx.constant(node, "groups", [groups])])
        one = ctx.constant(node, "one", [1])
        repeat = ctx.before(node, "Concat", [one, per_group], axis=0)
    column = ctx.constant(node, "column", [-1, 1])
    flat = ctx.constant(node, "flat", [-1])
    for index in (1, 2):
        value = ctx.before(node, "Reshape", [node.inputs[index], column])
        value = ctx.before(node, "Expand", [value, repeat])
        set_input(node, index, ctx.before(node, "Reshape", [value, flat]))


TABLE: dict[tuple[str, int], Adapter] = {
    ("Softmax", 13): softmax_13,
    ("LogSoftmax", 13): softmax_13,
    ("Hardmax", 13): softmax_13,
    ("BatchNormalization", 9): batch_normalization_9,
    ("BatchNormalization", 14): batch_normalization_14,
    ("GroupNormalization", 21): group_normalization_21,
}
