"""Regions with one way in and one way out: residual blocks, skip levels, gates."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir

from ir.analysis import idioms
from ir.analysis.idioms.base import is_op
from ir.graph import Graph, graphs

from .paths import continues, static_values
from .search import JOINS, Block, Kind, Search

__all__ = ["Block", "Kind", "blocks"]


def blocks(graph: Graph) -> list[Block]:
    """Every block of the graph, its bodies and its functions, outer blocks before what they hold.

    From each join the search goes back no further than the join's nearest entry, so the time is the
    number of nodes times the nesting.
    """
    inside = {id(n) for idiom in idioms.find(graph) for n in idiom.nodes}
    return [block for each in graphs(graph) for block in _of_graph(each, inside)]


def _of_graph(graph: onnx_ir.Graph, inside: set[int]) -> list[Block]:
    order = {id(node): i for i, node in enumerate(graph)}
    search = Search(order, static_values(graph))
    found: list[Block] = []
    for node in graph:
        if id(node) in inside or not is_op(node, *JOINS):
            continue
        if node.op_type == "Add" and continues(node):
            continue
        found += search.blocks(node)
    return _nested(found, order)


def _nested(found: list[Block], order: dict[int, int]) -> list[Block]:
    """Outermost first, with depths; blocks that cross another one stay at its depth."""
    ordered = sorted(found, key=lambda b: (order[id(b.nodes[0])], -order[id(b.exit.producer())]))
    result: list[Block] = []
    open_ends: list[int] = []
    for block in ordered:
        start, end = order[id(block.nodes[0])], order[id(block.exit.producer())]
        while open_ends and (open_ends[-1] < start or open_ends[-1] < end):
            open_ends.pop()
        result.append(replace(block, depth=len(open_ends)))
        open_ends.append(end)
    return result
