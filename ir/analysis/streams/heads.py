"""Attention: products of activations over tokens (values) and over channels (queries and keys)."""

from __future__ import annotations

import numpy as np

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.graph import Node, Value, attribute, constant, rank, readers

from .broadcast import narrowed, varying, widened
from .lanes import POSITIVE, Lane, sizes
from .walk import Walk


def write_product(walk: Walk, node: Node, lane: Lane) -> None:
    """Backwards through probabilities @ v: it mixes tokens, not the channels of v."""
    v, result = node.inputs[1], node.outputs[0]
    size = rank(result)
    if v is None or size is None or size - 1 not in lane.axes or size - 2 in lane.axes:
        return walk.block(node, "contracts activations over these channels")
    kept = varying(v, result, lane.axes)
    if kept is None or size - 1 not in kept:
        return walk.block(node, "takes heads of v of unknown number")
    _over_tokens(walk, node, lane)
    return walk.take(v, narrowed(walk, v, result, lane, kept), node)


def read_product(walk: Walk, node: Node, place: int, value: Value, lane: Lane) -> None:
    """Forwards through probabilities @ v, or from q to k and back."""
    size = rank(value) or 0
    contracted = size - 1 if place == 0 else size - 2
    if contracted == lane.axes[-1]:
        return _partner(walk, node, place, value, lane)
    if place == 0 or contracted in lane.axes or size - 1 not in lane.axes:
        return walk.block(node, "contracts activations over these channels")
    found = widened(value, node.outputs[0], lane)
    if found is None:
        # heads shared by broadcasting: the result is known by more axes from behind
        return walk.block(node, "shares heads of v between several of its own")
    _over_tokens(walk, node, lane)
    return walk.take(node.outputs[0], found, node)


def _over_tokens(walk: Walk, node: Node, lane: Lane) -> None:
    if producer(node.inputs[0], "Softmax") is None:
        walk.keep(POSITIVE)  # only rows that sum to one pass a shift
    _heads(walk, node.outputs[0], lane)


def _heads(walk: Walk, value: Value, lane: Lane) -> None:
    """Heads meet other numbers each: a permutation stays within one."""
    held = sizes(value, lane.axes)
    if held is not None and len(held) > 1:
        walk.within_runs(lane.index, held[-1])


def _partner(walk: Walk, node: Node, place: int, value: Value, lane: Lane) -> None:
    """q @ k sums over the channels: what divides one multiplies the other."""
    other = node.inputs[1 - place]
    size = rank(value) or 0
    if other is None or rank(other) != size:
        return walk.block(node, "contracts activations over these channels")
    walk.keep(POSITIVE)
    _heads(walk, value, lane)
    theirs = size - 2 if place == 0 else size - 1
    dims, mine = shapes.dims(other), shapes.dims(value)
    if dims is None or mine is None or dims[theirs] != mine[lane.axes[-1]]:
        return walk.block(node, "contracts a dimension that is not known")
    held = sizes(value, lane.axes)
    assert held is not None
    index, axes = lane.index.reshape(held), []
    for i in reversed(range(len(lane.axes) - 1)):
        if dims[lane.axes[i]] == 1 and held[i] != 1:
            index = walk.collapsed(index, i)
        elif dims[lane.axes[i]] != held[i]:
            return walk.block(node, "shares heads in a way that is not known")
        else:
            axes.insert(0, lane.axes[i])
    inverse = lane.inverse if walk.goal == "permute" else not lane.inverse
    return walk.take(other, Lane((*axes, theirs), index.ravel(), inverse), node)


def scores(node: Node) -> tuple[Value, Lane, Value] | None:
    """(queries, their lane, keys) of a product that a softmax follows."""
    if not is_op(node, "MatMul") or any(constant(v) is not None for v in node.inputs):
        return None
    q, k = node.inputs
    found, size = shapes.dims(q), rank(q)
    if q is None or k is None or found is None or size is None or size < 3:
        return None
    axes = (*(a for a in range(1, size - 2) if isinstance(found[a], int)), size - 1)
    held = sizes(q, axes)
    if held is None or not _softmax_follows(node):
        return None
    return q, Lane(axes, np.arange(int(np.prod(held)))), k


def _softmax_follows(node: Node) -> bool:
    for _ in range(6):
        uses = readers(node.outputs[0])
        if len(uses) != 1:
            return False
        node = uses[0][0]
        if is_op(node, "Softmax"):
            return attribute(node, "axis", -1) in (-1, (rank(node.outputs[0]) or 0) - 1)
        if not is_op(node, "Mul", "Div", "Add", "Where", "Cast", "Identity", "Clip", "Tanh"):
            return False
    return False
