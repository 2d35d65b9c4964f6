"""Which sets of layers are worth measuring in float: each costs a run of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir.analysis.blocks import blocks
from ir.graph import Graph
from passes.sites import Linear

PREFIXES = (1, 2, 3, 4, 6, 8)
"""Lengths of the runs of layers from the front: what goes wrong there goes through everything."""


@dataclass(frozen=True)
class Layer:
    """A coded layer, the same in the float model, its share of all multiply-accumulates, and the
    SQNR of its input's codes in dB (None: they have no fixed scale)."""

    site: Linear
    original: Linear
    share: float
    db: float | None

    @property
    def name(self) -> str:
        return self.site.y.name or ""


def candidates(
    layers: Sequence[Layer], teacher: Graph, share: float, tries: int
) -> list[frozenset[str]]:
    """Sets of layers' names of at most `share` in all: the `tries` layers whose input suffers most,
    the first layers in execution order, and the residual blocks of the layers tried."""
    cost = {layer.name: layer.share for layer in layers}
    known = [layer for layer in layers if layer.db is not None]
    worst = [x.name for x in sorted(known, key=lambda x: x.db or 0.0)[:tries]]
    found = [frozenset({name}) for name in worst]
    order = [layer.name for layer in layers]
    found += [frozenset(order[:count]) for count in PREFIXES if count < len(order)]
    found += [group for group in _blocks(teacher, set(cost)) if group & set(worst)][: tries // 4]
    fit = [group for group in found if sum(cost[name] for name in group) <= share]
    return list(dict.fromkeys(fit))


def _blocks(teacher: Graph, names: set[str]) -> list[frozenset[str]]:
    """The layers of every residual block, front to back."""
    found = []
    for block in blocks(teacher):
        if block.kind != "residual":
            continue
        made = {v.name for node in block.nodes for v in node.outputs if v.name in names}
        if len(made) > 1:
            found.append(frozenset(name for name in made if name))
    return found
