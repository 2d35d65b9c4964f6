"""Backwards: what computes a value that carries a stream's channels."""

from __future__ import annotations

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, attribute, constant, rank

from .broadcast import narrowed
from .detours import around
from .elementwise import CHECKED, UNARY, write_elementwise
from .fused import FUSED, write_fused
from .heads import write_product
from .lanes import KEEPS, Lane, before, sizes
from .limits import limit
from .pieces import PARTS, joined_axis, joined_before, part_before
from .ports import LINEAR, NORMS, depthwise, written
from .walk import Walk


def write(walk: Walk, value: Value, lane: Lane) -> None:
    node = value.producer()
    if node is None:
        return walk.block(None, f"feeds %{value.name} from outside")
    if value is not node.outputs[0] and not is_op(node, "Split"):
        return walk.block(node, "computes the channels in a way no map passes")
    if is_op(node, *PARTS):
        return walk.reach(node, 0, part_before(node, value, lane))
    if around(walk, node, lane):
        return None
    if is_op(node, *KEEPS) or limit(node) is not None:
        return _passed(walk, node, lane)
    if is_op(node, "Concat"):
        return _joined(walk, node, lane)
    if is_op(node, *CHECKED):
        return write_elementwise(walk, node, lane)
    if walk.goal == "permute" and is_op(node, *UNARY):
        return walk.take(node.inputs[0], lane, node)
    if is_op(node, *FUSED):
        return write_fused(walk, node, lane)
    if is_op(node, *LINEAR):
        return _linear(walk, node, lane)
    if is_op(node, *NORMS):
        return norm(walk, node, lane, value)
    return walk.block(node, "computes the channels in a way no map passes")


def _passed(walk: Walk, node: Node, lane: Lane) -> None:
    kept = limit(node)
    walk.keep(KEEPS[node.op_type] if kept is None else kept)
    axes, source = before(node, lane.axes), node.inputs[0]
    if is_op(node, "Expand", "Tile") and axes is not None and source is not None:
        return walk.reach(node, 0, _once(walk, node, source, axes, lane))
    return walk.reach(node, 0, None if axes is None else Lane(axes, lane.index, lane.inverse))


def _once(walk: Walk, node: Node, source: Value, axes, lane: Lane) -> Lane | None:
    """What is repeated along one of the lane's axes: channels of all copies are tied."""
    held, dims = sizes(node.outputs[0], lane.axes), shapes.dims(source)
    if held is None or dims is None:
        return None
    index, kept = lane.index.reshape(held), list(axes)
    for i in reversed(range(len(axes))):
        if axes[i] < 0 or (dims[axes[i]] == 1 and held[i] > 1):
            index = walk.collapsed(index, i)
            del kept[i]
        elif dims[axes[i]] != held[i]:
            return None
    return Lane(tuple(kept), index.ravel(), lane.inverse) if kept else None


def _joined(walk: Walk, node: Node, lane: Lane) -> None:
    if joined_axis(node) not in lane.axes:
        for place in range(len(node.inputs)):
            walk.reach(node, place, lane)
        return None
    parts = list(joined_before(node, lane))
    if any(part is None for _, part in parts):
        return walk.block(node, "joins parts of unknown size")
    walk.cut(part.index for _, part in parts if part is not None)
    for place, part in parts:
        if part is not None and (part.index >= 0).any():
            walk.reach(node, place, part)
    return None


def _linear(walk: Walk, node: Node, lane: Lane) -> None:
    w = node.inputs[1]
    if node.op_type == "MatMul" and constant(w) is None:
        return write_product(walk, node, lane)
    channel, axis = written(node)
    if constant(w) is None or w is None:
        return walk.block(node, "has no constant weight for these channels")
    if channel not in lane.axes:
        return walk.block(node, "is read over another axis than its channels")
    if len(lane.axes) > 1:  # flattened with its places, a channel is many of what follows
        kept = narrowed(walk, node.outputs[0], node.outputs[0], lane, (channel,))
        if kept is None or (walk.goal == "permute" and depthwise(node)):
            return walk.block(node, "is read over more axes than its channels")
        lane = kept
    groups = attribute(node, "group", 1) if node.op_type != "MatMul" else 1
    if node.op_type == "ConvTranspose" and groups != 1:
        return walk.block(node, "computes its channels in groups")
    if walk.goal == "permute" and depthwise(node):
        walk.take(node.inputs[0], lane, node)
    elif groups != 1:
        walk.within_runs(lane.index, len(lane.index) // groups)
    walk.port(node, 1, axis, "weight", lane)
    return _bias(walk, node, axis, lane)


def _bias(walk: Walk, node: Node, axis: int, lane: Lane) -> None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return
    shape = shapes.dims(bias) or ()
    if constant(bias) is None:
        walk.block(node, "has a computed bias")
    elif shape[-1:] != (shapes.dims(node.inputs[1]) or ())[axis : axis + 1]:
        walk.block(node, "has a bias that is not one number per channel")
    elif attribute(node, "beta", 1.0) == 0:
        walk.block(node, "does not add its bias")
    else:
        walk.port(node, 2, len(shape) - 1, "bias", lane)


def norm(walk: Walk, node: Node, lane: Lane, value: Value) -> None:
    """Its gain and bias write the channels; any order of what it normalises passes."""
    size = rank(value) or 0
    last = is_op(node, "LayerNormalization", "RMSNormalization")
    channel = size - 1 if last else 1
    if lane.axes[-1] != channel or (last and attribute(node, "axis", -1) not in (-1, size - 1)):
        return walk.block(node, "normalises over another axis")
    if len(lane.axes) > 1 and not last:
        return walk.block(node, "normalises over another axis")
    held = sizes(value, lane.axes)
    assert held is not None
    index = lane.index.reshape(held)
    for _ in held[:-1]:
        index = walk.collapsed(index, 0)
    shared = Lane((0,), index, lane.inverse)
    _gains(walk, node, shared)
    if walk.goal == "scale":
        return walk.keep({"scale", "shift"})
    width = held[-1] // attribute(node, "num_groups", 1)
    if len(held) > 1 or width != held[-1]:
        walk.within_runs(lane.index, width)
    other = node.inputs[0] if value is node.outputs[0] else node.outputs[0]
    return walk.take(other, lane, node)


def _gains(walk: Walk, node: Node, lane: Lane) -> None:
    names = ("gain", "bias", "mean", "variance")
    count = 3 if walk.goal == "scale" else 5
    for place in range(1, min(len(node.inputs), count)):
        tensor = node.inputs[place]
        if tensor is None:
            continue
        if constant(tensor) is None:
            walk.block(node, f"has a computed {names[place - 1]}")
        elif shapes.dims(tensor) != (len(lane.index),):
            walk.block(node, "has a gain that is not one number per channel")
        else:
            walk.port(node, place, 0, "bias" if place == 2 else "weight", lane)
