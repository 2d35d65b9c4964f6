"""Residual streams: the activation that block after block adds to."""

from __future__ import annotations

from dataclasses import dataclass

from ir.analysis.blocks import Block, blocks
from ir.analysis.blocks.paths import terms
from ir.graph import Graph, Node, Value, constant, readers


@dataclass(frozen=True, eq=False)
class Residual:
    """Values that are each the one before plus what a block adds.

    values:  in graph order; the first is what the first block reads, the last is the last sum
    added:   what is added on the way, branch by branch, before its sum
    readers: nodes that read one of the values for more than its sum and its shape: norms, layers,
             projections. Whoever maps the stream (rotates it, say) must see to each of them
    blocks:  the residual blocks along it, in graph order
    """

    values: tuple[Value, ...]
    added: tuple[Value, ...]
    readers: tuple[Node, ...]
    blocks: tuple[Block, ...]


def residuals(graph: Graph) -> list[Residual]:
    """The residual streams of a graph, longest first.

    A shortcut that is projected, or a norm or an activation after the sum (as in a post-norm
    transformer or a ResNet), ends one stream and begins the next.
    """
    follow: dict[int, list[Block]] = {}
    exits: set[int] = set()
    for block in blocks(graph):
        if block.kind == "residual" and any(t is block.entry for t in _terms(block)):
            follow.setdefault(id(block.entry), []).append(block)
            exits.add(id(block.exit))
    chains = [
        _chain(first, follow)
        for steps in follow.values()
        for first in steps
        if id(first.entry) not in exits
    ]
    return sorted(map(_residual, chains), key=lambda r: -len(r.values))


def _terms(block: Block) -> list[Value]:
    join = block.exit.producer()
    return [] if join is None else terms(join)[0]


def _chain(block: Block, follow: dict[int, list[Block]]) -> list[Block]:
    """The innermost block that begins at each value in turn: levels around it are no step."""
    chain = []
    steps = [block]
    while steps:
        chain.append(min(steps, key=lambda b: len(b.nodes)))
        steps = follow.get(id(chain[-1].exit), [])
    return chain


def _residual(chain: list[Block]) -> Residual:
    values = [chain[0].entry, *(block.exit for block in chain)]
    kept = {id(v) for v in values}
    added, sums = [], set()
    for block in chain:
        join = block.exit.producer()
        if join is None:
            continue
        parts, inner = terms(join)
        added += [v for v in parts if id(v) not in kept and constant(v) is None]
        sums |= {id(join), *(id(node) for node in inner)}
    found = {
        id(node): node
        for value in values
        for node, _ in readers(value)
        if id(node) not in sums and node.op_type not in ("Shape", "Size")
    }
    return Residual((*values,), (*added,), (*found.values(),), (*chain,))
