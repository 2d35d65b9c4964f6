"""What the outputs would gain if one layer were float: measured without running all of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from backends.torch import Executor
from ir.graph import Graph, array, constant
from passes import evaluate
from passes.sites import Linear, float_input

Feeds = Mapping[str, np.ndarray]
KEPT = 1 << 26
"""Bytes of decoded weights that stay in memory from layer to layer."""


class WhatIf:
    """The float model on a few batches, and how near to it a coded graph comes."""

    def __init__(self, float_graph: Graph, probes: Sequence[Feeds]) -> None:
        self.probes = probes
        self.executor = Executor(float_graph, keep_bytes=0)
        self.reference = [self.executor.run(feeds) for feeds in probes]

    def measure(
        self, graph: Graph, sites: Sequence[tuple[Linear, Linear]]
    ) -> tuple[float, dict[str, float]]:
        """(SQNR in dB now, {node name: SQNR if that layer alone read floats}): `evaluate.mean_db`.

        sites: layers of the graph's main part with codes, each with the float model's own.
        """
        executor = Executor(graph, keep_bytes=KEPT)
        changes = {site.y.name or "": self._as_float(site, own) for site, own in sites}
        layers = {site.y.name: site.node.name or "" for site, _ in sites}
        sums: dict[str | None, evaluate.Totals] = {}
        for feeds, wanted in zip(self.probes, self.reference, strict=True):
            for value, outputs in executor.branches(feeds, changes):
                _add(sums.setdefault(value, {}), wanted, outputs)
        found = {
            value: evaluate.mean_db(
                {k: t.result().sqnr_db for k, t in totals.items() if t.elements}
            )
            for value, totals in sums.items()
            if totals
        }
        if None not in found:
            return np.inf, {}  # no output of floats to be measured by
        return found[None], {layers[value]: db for value, db in found.items() if value is not None}

    def _as_float(self, site: Linear, own: Linear):
        """(the layer's input before its codes, a function of it: the float layer)."""
        region = self.executor.region([own.x.name or ""], [own.y.name or ""])
        bias, present = (nth(node, 2) for node in (own.node, site.node))
        params = {}
        if bias is not None and present is not None and array(present) is not None:
            params[bias.name or ""] = torch.from_numpy(np.array(array(present)))

        def run(x: torch.Tensor) -> torch.Tensor:
            return region.run({own.x.name or "": x}, params=params)[own.y.name or ""]

        return float_input(site).name or "", run


def nth(node, index: int):
    """An input of a node, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def measurable(own: Linear) -> bool:
    """Whether the layer reads one computed value only (a bias may be computed as well)."""
    return all(constant(v) is not None for v in own.node.inputs[1:] if v is not None)


def _add(totals: evaluate.Totals, wanted: Mapping, outputs: Mapping) -> None:
    for (name, a), b in zip(wanted.items(), outputs.values(), strict=True):
        if isinstance(a, torch.Tensor):
            evaluate.add(totals, name, evaluate.to_numpy(a), evaluate.to_numpy(b))
