"""The regions of a graph that are reconstructed one after another: residual blocks, and every
layer that lies in none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir.analysis.blocks import Block, blocks
from ir.graph import Graph, Node, Value, constant


@dataclass(frozen=True)
class Region:
    """What comes in (the stream first, then side operands), what goes out, and every value between
    (with the output), by name."""

    inputs: tuple[str, ...]
    output: str
    inner: frozenset[str]

    @property
    def name(self) -> str:
        return f"%{self.output}"


def regions(graph: Graph, layers: Sequence[Node] = ()) -> list[Region]:
    """The outermost residual blocks of the main graph, and each of `layers` in none of them."""
    order = {id(node): i for i, node in enumerate(graph.graph)}
    chosen: list[Block] = []
    taken: set[int] = set()
    for block in blocks(graph):
        ids = {id(node) for node in block.nodes}
        if block.kind == "residual" and ids <= order.keys() and not ids & taken:
            chosen.append(block)
            taken |= ids
    found = [(order[id(block.nodes[0])], _of_block(block)) for block in chosen]
    for node in layers:
        if id(node) in order and id(node) not in taken:
            found.append((order[id(node)], _of_layer(node)))
    return [region for _, region in sorted(found, key=lambda pair: pair[0])]


def _of_block(block: Block) -> Region:
    inner = frozenset(_name(v) for node in block.nodes for v in node.outputs)
    return Region((_name(block.entry), *map(_name, block.side)), _name(block.exit), inner)


def _of_layer(node: Node) -> Region:
    sources = [v for v in node.inputs if v is not None and constant(v) is None]
    output = _name(node.outputs[0])
    return Region(tuple(map(_name, sources)), output, frozenset({output}))


def _name(value: Value) -> str:
    return value.name or ""
