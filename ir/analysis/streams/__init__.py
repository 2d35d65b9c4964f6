"""Activation channels that writers and readers can share a map on: scale, shift, permutation."""

from __future__ import annotations

from ir.graph import Graph, graphs

from .lanes import Lane
from .ports import Port, Role, Stream, contraction, unshifted
from .read import read
from .residual import Residual, residuals
from .walk import Walk
from .write import write

__all__ = ["Port", "Residual", "Role", "Stream", "residuals", "streams", "unshifted"]


def streams(graph: Graph) -> list[Stream]:
    """Every stream that ends in linear layers with constant weights, in graph order.

    Needs inferred shapes; open dims are fine. A norm's output read by several linears is one
    stream; layout ops, ReLU, pooling, and Reshape that splits or merges heads are passed, as are
    a Split of a wide layer (of which the stream is a part), the weighted sum of an attention (v to
    o), one operand of a product (up beside its gate; a norm under a computed scale and shift).
    """
    done: set[tuple[int, Lane]] = set()
    found = []
    for each in graphs(graph):
        for node in each:
            place = contraction(node)
            if place is None:
                continue
            value, axis, _ = place
            start = (value, Lane((axis,)))
            if (id(value), start[1]) in done:
                continue
            walk = Walk()
            walk.follow(start, write, read)
            done.update(walk.members)
            found.append(walk.stream(value, axis))
    return found
