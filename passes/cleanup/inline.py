"""Local functions become part of the graph that calls them."""

from __future__ import annotations

from dataclasses import dataclass

from ir.errors import PassError
from ir.graph import QUANT_DOMAIN, Graph
from passes.core import Ctx, Effect, Pass, register


@register
@dataclass(frozen=True)
class Inline(Pass):
    """Put the body of every local function where it is called.

    rewrite:  y = custom.Dense(x, w)
              -->
              y = MatMul(x, w)
    shapes:   any; a function called twice becomes two copies, so that each can be calibrated alone
    options:  none
    error:    exact
    raises:   PassError for functions that call themselves; the functions of our own ops stay
    source:   the ONNX definition of a function call
    """

    name = "inline"
    effect = Effect.EXACT
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        own = [f for f in graph.functions.values() if f.domain != QUANT_DOMAIN]
        if not own:
            return
        try:
            ctx.edit.inline_functions()
        except Exception as error:  # the inliner's own precondition errors
            raise PassError(f"a local function cannot be inlined: {error}") from error
        for function in own:
            ctx.did(f"function '{function.name}'")
