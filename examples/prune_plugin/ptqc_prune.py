"""A pass of somebody else's: set small weights to zero. Once this package is installed,

    ptqc quantize model.onnx --recipe "clean | prune{below=0.02} | ..." ...

knows it: pyproject.toml beside this file names the module in the group `passes.plugins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.errors import PassError
from ir.graph import Graph, array
from passes import Ctx, Effect, Pass, register
from passes.sites import linears


def prune(weight: np.ndarray, below: float) -> np.ndarray:
    """The weight with every element of magnitude under `below` times the largest set to zero."""
    return np.where(np.abs(weight) < below * np.abs(weight).max(), 0, weight).astype(weight.dtype)


@register
@dataclass(frozen=True)
class Prune(Pass):
    """Set the small weights of every linear layer to zero.

    rewrite:  y = x @ W
              -->
              y = x @ prune(W)
    shapes:   W of any shape
    options:  below in [0, 1): an element is dropped under this share of the largest magnitude
    error:    at most below * max|W| per weight
    raises:   PassError when below is out of range
    source:   magnitude pruning, Han et al., arXiv:1506.02626
    """

    name: ClassVar[str] = "prune"
    effect: ClassVar[Effect] = Effect.LOSSY

    below: float = 0.01

    def run(self, graph: Graph, ctx: Ctx) -> None:
        if not 0 <= self.below < 1:
            raise PassError(f"below is {self.below}", hint="give a share in [0, 1)")
        for site in list(linears(graph)):
            weight = array(site.weight)
            if weight is None:
                ctx.skip(site.node, "its weight is already coded; put prune before place")
                continue
            sparse = prune(weight, self.below)
            if not (sparse != weight).any():
                ctx.skip(site.node, f"no weight is under {self.below} of the largest")
                continue
            new = ctx.edit.constant(sparse, f"{site.weight.name}.pruned", at=site.node)
            ctx.edit.set_input(site.node, 1, new)
            if not site.weight.uses():
                ctx.edit.drop_constant(site.weight)
            ctx.did(site.node)
