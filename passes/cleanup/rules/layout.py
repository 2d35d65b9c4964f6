"""Chains of views and transposes become one, or none; padding moves into the Conv that reads it."""

from __future__ import annotations

import numpy as np
import onnx_ir

from ir.graph import Node, Value, array, attribute, constant, rank, scalar
from passes.cleanup.dims import Dims
from passes.cleanup.partial import reshape_target
from passes.cleanup.walk import drop_unread, only_reader
from passes.core import Ctx

from . import Rule
from .copies import bypass

VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_LONGEST = 8


def _source(value: Value | None, *ops: str) -> Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and not node.domain and node.op_type in ops else None


def merge_views(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """A view of a view is a view of the first; one that restores its shape is the first itself."""
    shape, value = dims.shape(node.outputs[0]), node.inputs[0]
    if shape is None:
        return False
    for _ in range(_LONGEST):
        view = _source(value, *VIEWS)
        if view is None:
            break
        value = view.inputs[0]
        if value is not None and dims.shape(value) == shape:
            return bypass(node, value, ctx)
    return _one_reshape(node, list(shape), ctx, dims)


def _one_reshape(node: Node, shape: list, ctx: Ctx, dims: Dims) -> bool:
    middle, view = node.inputs[0], _source(node.inputs[0], *VIEWS)
    source = view.inputs[0] if view is not None else None
    if view is None or source is None or only_reader(middle) is not node:  # type: ignore[arg-type]
        return False
    target = reshape_target(dims.shape(source), shape, allowzero=False)
    if target is None or 0 in shape:
        return False
    name = str(node.outputs[0].name)
    wanted = ctx.edit.constant(np.array(target, np.int64), f"{name}.shape", at=node)
    made = ctx.edit.node("Reshape", [source, wanted], like=name, before=node)
    return _exchange(node, made, ctx)


def _exchange(node: Node, made: Node, ctx: Ctx) -> bool:
    """`made` computes what `node` did."""
    inputs = list(node.inputs)
    ctx.edit.replace(node.outputs[0], made.outputs[0])
    ctx.edit.remove(node)
    drop_unread(ctx.edit, inputs)
    return True


def merge_transposes(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Transpose of a Transpose: one permutation, or none."""
    first = _source(node.inputs[0], "Transpose")
    source = first.inputs[0] if first is not None else None
    dimensions = rank(source) or len(attribute(node, "perm", ()))
    if first is None or source is None or not dimensions:
        return False
    backwards = list(range(dimensions))[::-1]
    inner, outer = attribute(first, "perm", backwards), attribute(node, "perm", backwards)
    perm = [inner[i] for i in outer]
    if perm == sorted(perm):
        return bypass(node, source, ctx)
    if only_reader(node.inputs[0]) is not node:  # type: ignore[arg-type]
        return False
    name = str(node.outputs[0].name)
    return _exchange(
        node, ctx.edit.node("Transpose", [source], like=name, before=node, perm=perm), ctx
    )


def merge_casts(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Cast of a Cast that lost nothing: the second alone."""
    first = _source(node.inputs[0], "Cast")
    source = first.inputs[0] if first is not None else None
    if first is None or source is None or source.dtype is None or node.inputs[0].dtype is None:  # type: ignore
        return False
    if not _widens(source.dtype, node.inputs[0].dtype):  # type: ignore[union-attr]
        return False
    if int(source.dtype) == attribute(node, "to"):
        return bypass(node, source, ctx)
    ctx.edit.set_input(node, 0, source)
    drop_unread(ctx.edit, [first.outputs[0]])
    return True


def _widens(a, b) -> bool:
    """Whether every number of type `a` is one of type `b`."""
    try:
        return bool(np.can_cast(a.numpy(), b.numpy(), "safe"))
    except TypeError:
        return False


def pad_into_conv(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Zeros put around the image become the Conv's own padding."""
    pad = _source(node.inputs[0], "Pad")
    pads = _zero_pads(pad) if pad is not None else None
    if (
        pad is None
        or pads is None
        or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ):
        return False
    half = len(pads) // 2
    if (pads < 0).any() or pads[:2].any() or pads[half : half + 2].any() or half < 3:
        return False
    spatial = np.concatenate([pads[2:half], pads[half + 2 :]])
    own = np.array(attribute(node, "pads", [0] * len(spatial)))
    ctx.edit.attribute(node, "pads", [int(n) for n in own + spatial])
    ctx.edit.attribute(node, "auto_pad", None)
    ctx.edit.set_input(node, 0, pad.inputs[0])
    drop_unread(ctx.edit, [pad.outputs[0]])
    return True


def _zero_pads(pad: Node) -> np.ndarray | None:
    """Begins and ends for every axis of a Pad with zeros, or None."""
    pads = array(pad.inputs[1])
    fill = pad.inputs[2] if len(pad.inputs) > 2 else None
    if pads is None or attribute(pad, "mode", "constant") != "constant":
        return None
    if fill is not None and scalar(fill) != 0:
        return None
    axes = pad.inputs[3] if len(pad.inputs) > 3 else None
    if axes is None:
        return pads
    dimensions, chosen = rank(pad.inputs[0]), array(axes)
    if dimensions is None or chosen is None:
        return None
    full = np.zeros((2, dimensions), np.int64)
    full[:, chosen] = pads.reshape(2, -1)
    return full.reshape(-1)


def unflatten_gemm(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Reshape to rows, Gemm, Reshape back: a MatMul over the last axis, and its Add."""
    gemm = _source(node.inputs[0], "Gemm")
    rows = _source(gemm.inputs[0], *VIEWS) if gemm is not None else None
    if gemm is None or rows is None or only_reader(gemm.outputs[0]) is not node:
        return False
    source, weight = rows.inputs[0], constant(gemm.inputs[1])
    before, after = dims.shape(source), dims.shape(node.outputs[0])
    scale = [attribute(gemm, key, 1.0) for key in ("alpha", "beta")] + [
        1 - attribute(gemm, "transA", 0)
    ]
    if weight is None or before is None or after is None or scale != [1, 1, 1] or source is None:
        return False
    inner, outer = tuple(weight.shape)[:: -1 if attribute(gemm, "transB", 0) else 1]
    if len(before) < 3 or before[:-1] != after[:-1] or (before[-1], after[-1]) != (inner, outer):
        return False
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 else None
    if bias is not None and (rank(bias) is None or rank(bias) > 1):  # type: ignore[operator]
        return False
    return _matmul_add(node, gemm, source, bias, ctx)


def _matmul_add(node: Node, gemm: Node, source: Value, bias: Value | None, ctx: Ctx) -> bool:
    name, edit = str(node.outputs[0].name), ctx.edit
    weight: Value = gemm.inputs[1]  # type: ignore[assignment]
    if attribute(gemm, "transB", 0):
        turned = array(weight).T  # type: ignore[union-attr]
        tensor = onnx_ir.Tensor(turned, weight.dtype)  # a view
        weight = edit.constant(tensor, f"{weight.name}.T", at=gemm)
    made = edit.node("MatMul", [source, weight], like=name, before=node)
    product = made.outputs[0]
    product.type, product.shape = node.outputs[0].type, node.outputs[0].shape
    if bias is not None:
        edit.rename(product, f"{name}.product")
        made = edit.node("Add", [product, bias], like=name, before=node)
    return _exchange(node, made, ctx)


RULES: dict[str, tuple[Rule, ...]] = {
    "Reshape": (unflatten_gemm, merge_views),
    **dict.fromkeys(VIEWS[1:], (merge_views,)),
    "Transpose": (merge_transposes,),
    "Cast": (merge_casts,),
    "Conv": (pad_into_conv,),
}
