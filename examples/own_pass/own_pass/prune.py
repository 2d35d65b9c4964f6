"""A third party's pass: set the smallest weights to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.graph import Graph, array
from passes import Ctx, Effect, Pass, register
from passes.sites import linears


def smallest_to_zero(weight: np.ndarray, share: float) -> np.ndarray:
    """`weight` with the `share` of its numbers that are nearest to zero set to zero."""
    cut = np.quantile(np.abs(weight), share)
    return np.where(np.abs(weight) <= cut, 0, weight).astype(weight.dtype)


@register
@dataclass(frozen=True)
class Prune(Pass):
    """Set the smallest weights of every linear layer to zero.

    rewrite:  y = x @ w --> y = x @ (w * mask)
    shapes:   w, mask as in the model
    options:  share: part of every layer's weights that becomes zero, in [0, 1]
    error:    the sum of x times the weights that went
    raises:   nothing; skips layers whose weights are codes already
    source:   Han et al., arXiv:1506.02626
    """

    name: ClassVar[str] = "prune"
    effect: ClassVar[Effect] = Effect.LOSSY

    share: float = 0.5

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for site in linears(graph):
            weight = array(site.weight)
            if weight is None:
                ctx.skip(site.node, "its weights are codes already: put prune before place")
                continue
            pruned = smallest_to_zero(weight, self.share)
            made = ctx.edit.constant(pruned, f"{site.weight.name}.pruned")
            ctx.edit.set_input(site.node, 1, made)
            ctx.edit.drop_constant(site.weight)
            ctx.did(site.node)
