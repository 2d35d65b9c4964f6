"""The standard ops Attention and RotaryEmbedding, which hold heads inside."""

from __future__ import annotations

import numpy as np

from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, attribute, constant, rank

from .lanes import POSITIVE, Lane, sizes
from .walk import Walk

FUSED = ("Attention", "RotaryEmbedding")


def heads(node: Node, place: int) -> tuple[tuple[int, ...], int, int] | None:
    """(axes, heads, channels of one) of an input: axes 1 and 3, or the last that holds both."""
    value = node.inputs[place]
    size = rank(value)
    if size == 4:
        held = sizes(value, (1, 3))
        return None if held is None else ((1, 3), held[0], held[1])
    whose = "q_" if place == 0 else "kv_"
    name = f"{'' if is_op(node, 'RotaryEmbedding') else whose}num_heads"
    count, held = attribute(node, name, 0), sizes(value, (2,))
    if size != 3 or not count or held is None or held[0] % count:
        return None
    return (2,), count, held[0] // count


def queries(node: Node) -> tuple[Value, Lane, Value] | None:
    """(queries, their lane, keys) of an Attention."""
    found = heads(node, 0) if is_op(node, "Attention") else None
    q, k = node.inputs[:2] if found is not None else (None, None)
    if found is None or q is None or k is None or constant(q) is not None:
        return None
    axes, count, width = found
    return q, Lane(axes, np.arange(count * width)), k


def write_fused(walk: Walk, node: Node, lane: Lane) -> None:
    """Backwards: an attention's result has the channels of its values."""
    if is_op(node, "RotaryEmbedding"):
        return _turned(walk, node, node.inputs[0], lane)
    return _to(walk, node, lane, 2)


def read_fused(walk: Walk, node: Node, place: int, lane: Lane) -> None:
    """Forwards: to the result, and from queries to keys and back."""
    if is_op(node, "RotaryEmbedding") and place == 0:
        return _turned(walk, node, node.outputs[0], lane)
    if is_op(node, "RotaryEmbedding") or place > 2:
        return walk.block(node, "sees the channels unscaled")
    if place == 2:
        return _from_values(walk, node, lane)
    walk.keep(POSITIVE)
    inverse = lane.inverse if walk.goal == "permute" else not lane.inverse
    return _to(walk, node, Lane(lane.axes, lane.index, inverse), 1 - place)


def _cached(node: Node, place: int) -> bool:
    """Whether keys (1) or values (2) come from a cache or go into one as well."""
    past, present = node.inputs[place + 3 :], node.outputs[place:]
    return bool(past and past[0] is not None) or bool(present and present[0].uses())


def _to(walk: Walk, node: Node, lane: Lane, place: int) -> None:
    """The lane of one operand from that of another one, or of the result."""
    cached = _cached(node, 2 if place == 2 else 1)
    found = heads(node, place)
    if found is None or cached:
        return walk.block(node, "has heads of unknown number, or a cache")
    axes, count, width = found
    index = shared(walk, lane.index, count, width)
    if index is None:
        return walk.block(node, "mixes the channels with other axes")
    walk.within_runs(lane.index, width)
    return walk.take(node.inputs[place], Lane(axes, index, lane.inverse), node)


def _from_values(walk: Walk, node: Node, lane: Lane) -> None:
    found, mine = heads(node, 2), heads(node, 0)
    if found is None or mine is None or _cached(node, 2):
        return walk.block(node, "has heads of unknown number, or a cache")
    index = shared(walk, lane.index, mine[1], found[2])
    if index is None:
        return walk.block(node, "mixes the channels with other axes")
    walk.within_runs(lane.index, found[2])
    return walk.take(node.outputs[0], Lane(found[0], index, lane.inverse), node)


def shared(walk: Walk, index: np.ndarray, count: int, width: int) -> np.ndarray | None:
    """The channels of so many heads, from those of more, neighbours of which share one, or of
    fewer, each of which several neighbours share."""
    if len(index) % width:
        return None
    held = len(index) // width
    if held % count == 0:
        return walk.collapsed(index.reshape(count, -1, width), 1).ravel()
    if count % held == 0:
        return np.repeat(index.reshape(held, width), count // held, axis=0).ravel()
    return None


def _turned(walk: Walk, node: Node, other: Value | None, lane: Lane) -> None:
    """Two channels are turned together: they share a factor, and no order passes."""
    found = heads(node, 0)
    if walk.goal == "permute" or found is None or len(lane.index) != found[1] * found[2]:
        return walk.block(node, "turns pairs of channels")
    walk.keep({"scale"})
    index = lane.index.reshape(found[1], found[2]).copy()
    turned = attribute(node, "rotary_embedding_dim", 0) or found[2]
    part = index[:, :turned]
    if attribute(node, "interleaved", 0):
        first, second = part[:, ::2], part[:, 1::2]
    else:
        first, second = part[:, : turned // 2], part[:, turned // 2 :]
    both, _ = walk.merged(first, second)
    same, _ = walk.merged(second, first)
    first[...], second[...] = both.copy(), same.copy()
    return walk.take(other, Lane(found[0], index.ravel(), lane.inverse), node)
