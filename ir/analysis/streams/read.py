"""Forwards: every reader of a value that carries a stream's channels must undo or pass the map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, attribute, constant, rank, readers

from .lanes import KEEPS, PARTS, Lane, after, aligned, parts_after
from .ports import contraction
from .walk import Step, Walk


def read(walk: Walk, value: Value, lane: Lane) -> Iterator[Step]:
    if value.is_graph_output():
        walk.block(None, f"puts %{value.name} out")
    for node, index in readers(value):
        yield from _read_by(walk, node, index, value, lane)


def _read_by(walk: Walk, node: Node, index: int, value: Value, lane: Lane) -> Iterable[Step]:
    if node.op_type in ("Shape", "Size"):
        return ()
    place = contraction(node)
    if place is not None and index == 0:
        _, axis, port = place
        if lane.axes != (axis,):
            return walk.block(node, "contracts over another axis")
        walk.readers.append(replace(port, part=lane.part))
        _limit(walk, node)
        return ()
    if index == 0 and is_op(node, *PARTS):
        return _parts(walk, node, lane)
    if index == 0 and is_op(node, *KEEPS):
        found = after(node, lane)
        if found is None:
            return walk.block(node, "mixes the channels with other axes")
        walk.keep(KEEPS[node.op_type])
        return [(node.outputs[0], found)]
    if is_op(node, "Add", "Mul"):
        return _elementwise(walk, node, value, lane)
    if is_op(node, "MatMul") and index == 1 and constant(node.inputs[0]) is None:
        return _summed(walk, node, lane)
    return walk.block(node, "sees the channels unscaled")


def _parts(walk: Walk, node: Node, lane: Lane) -> Iterator[Step]:
    for output, found in parts_after(node, lane):
        if found is None:
            walk.block(node, "parts the channels")
        else:
            yield output, found


def _elementwise(walk: Walk, node: Node, value: Value, lane: Lane) -> Iterable[Step]:
    """A sum passes the map on. A product does so when this operand, and it alone, carries it."""
    output = node.outputs[0]
    found = aligned(value, output, lane)
    if found is None:
        return walk.block(node, "spreads the channels")
    alone = sum(v is value for v in node.inputs) == 1
    if node.op_type == "Mul" and not (walk.holds(output, found) and alone):
        return walk.block(node, "sees the channels unscaled")
    return [(output, found)]


def _summed(walk: Walk, node: Node, lane: Lane) -> Iterable[Step]:
    size = rank(node.outputs[0]) or 0
    if size - 2 in lane.axes or size != rank(node.inputs[1]):
        return walk.block(node, "contracts activations over these channels")
    return [(node.outputs[0], lane)]


def _limit(walk: Walk, node: Node) -> None:
    if node.op_type != "Conv":
        return
    pads = attribute(node, "pads", ()) or ()
    if any(pads) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        walk.keep({"scale", "permute"})  # padding zeros are not shifted
    if attribute(node, "group", 1) != 1:
        walk.keep({"scale", "shift"})
