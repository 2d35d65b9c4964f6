"""Nodes whose output is their input."""

from __future__ import annotations

import numpy as np

from ir.graph import Node, Value, array, attribute, constant, scalar
from passes.cleanup.dims import Dims
from passes.cleanup.walk import drop_unread
from passes.core import Ctx

from . import Rule


def bypass(node: Node, source: Value, ctx: Ctx) -> bool:
    """Let the readers of a node's first output read `source`; False where a name forbids it."""
    output, inputs = node.outputs[0], list(node.inputs)
    if output.is_graph_output():
        maker = source.producer()
        if maker is None or maker.graph is not node.graph or source.is_graph_output():
            return False  # the graph must return a value of its own under this name
        ctx.edit.replace(output, source)
    else:
        ctx.edit.reuse(output, source)
    ctx.edit.remove(node)
    drop_unread(ctx.edit, [value for value in inputs if value is not source])
    return True


def same_shape(a: Value, b: Value, dims: Dims) -> bool:
    """Whether two values provably have the same shape."""
    return dims.shape(a) is not None and dims.shape(a) == dims.shape(b)


def _is_copy(node: Node, dims: Dims) -> bool:
    x, output = node.inputs[0], node.outputs[0]
    match node.op_type:
        case "Identity":
            return True
        case "Dropout":
            training = scalar(node.inputs[2]) if len(node.inputs) > 2 else 0
            off = len(node.inputs) < 3 or node.inputs[2] is None or training == 0
            return off and not any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
        case "Cast":
            return x is not None and x.dtype is not None and int(x.dtype) == attribute(node, "to")
        case "Transpose":
            perm = attribute(node, "perm")
            return perm is not None and list(perm) == sorted(perm)
        case "Pad":
            pads = array(node.inputs[1])
            return pads is not None and not pads.any()
        case "Tile":
            repeats = array(node.inputs[1])
            return repeats is not None and bool((repeats == 1).all())
        case "Concat" | "Sum" | "Max" | "Min" | "Mean":
            return len(node.inputs) == 1
        case "Reshape" | "Expand":
            return x is not None and same_shape(x, output, dims)
    return False


def drop_copy(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Identity, Dropout at inference, and casts, views, paddings, repeats that change nothing."""
    x = node.inputs[0] if node.inputs else None
    return x is not None and _is_copy(node, dims) and bypass(node, x, ctx)


def drop_whole_slice(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """A Slice that takes everything."""
    parts = [array(value) for value in node.inputs[1:]]
    if any(part is None for part in parts) or node.inputs[0] is None:
        return False
    starts, ends, *rest = parts
    axes = rest[0] if rest else np.arange(len(starts))  # type: ignore[arg-type]
    steps = rest[1] if len(rest) > 1 else np.ones(len(starts), np.int64)  # type: ignore[arg-type]
    shape = dims.shape(node.inputs[0])
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):  # type: ignore
        size = shape[axis] if shape is not None else None
        reaches = end >= np.iinfo(np.int32).max or (isinstance(size, int) and end >= size)
        if start != 0 or step != 1 or not reaches:
            return False
    return bypass(node, node.inputs[0], ctx)


def drop_neutral(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """x * 1, x / 1, x + 0, x - 0, x ** 1 where the constant does not widen x either."""
    row = constant(node.inputs[1])
    x, neutral = node.inputs[0], 0 if node.op_type in ("Add", "Sub") else 1
    if row is None or x is None or row.size > 1 << 16 or not (row.numpy() == neutral).all():
        return False
    small = row.size == 1 and dims.shape(x) is not None and len(row.shape) <= len(dims.shape(x))  # type: ignore
    return (small or same_shape(x, node.outputs[0], dims)) and bypass(node, x, ctx)


def drop_settled_where(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """A Where whose condition is all true or all false."""
    condition = constant(node.inputs[0])
    if condition is None or condition.size > 1 << 16:
        return False
    chosen = condition.numpy()
    if not (chosen.all() or not chosen.any()):
        return False
    taken = node.inputs[1 if chosen.all() else 2]
    return (
        taken is not None and same_shape(taken, node.outputs[0], dims) and bypass(node, taken, ctx)
    )


_COPIES = ("Identity", "Dropout", "Cast", "Transpose", "Pad", "Tile", "Concat", "Sum", "Max", "Min")
RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys((*_COPIES, "Mean", "Reshape", "Expand"), (drop_copy,)),
    **dict.fromkeys(("Mul", "Div", "Add", "Sub", "Pow"), (drop_neutral,)),
    "Slice": (drop_whole_slice,),
    "Where": (drop_settled_where,),
}
