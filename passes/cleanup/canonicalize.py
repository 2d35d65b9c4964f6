"""One spelling for everything that exporters spell in several ways."""

from __future__ import annotations

from dataclasses import dataclass

from ir.errors import describe
from ir.graph import Graph, Node, graphs
from passes.core import Ctx, Effect, Pass, register

from .dims import Dims
from .rules import Rule, arithmetic, copies, layout, products
from .rules.idioms import fuse

_TABLES = (layout, copies, arithmetic, products)
RULES: dict[str, tuple[Rule, ...]] = {
    op: tuple(rule for table in _TABLES for rule in table.RULES.get(op, ()))
    for op in {op for table in _TABLES for op in table.RULES}
}
_MOST = 8
"""Rewrites of one node in a row. Every rule makes the graph smaller or plainer: never reached."""


@register
@dataclass(frozen=True)
class Canonicalize(Pass):
    """Bring equal spellings to one: no copies, one view for several, constants to the right.

    rewrite:  y = Transpose(Transpose(x)); z = Add(2, Identity(y))
              -->
              z = Add(x, 2)
    shapes:   any. A linear layer is MatMul with a constant [K, N] and its Add at any rank, and Gemm
              where the model says Gemm (its input has rank 2): ONNX Runtime runs both with one
              kernel, and Gemm carries its bias through quantization. Reshape, Gemm, Reshape
              around rows is the MatMul form. Decomposed LayerNormalization, RMSNormalization,
              Gelu, HardSwish and Softmax become the op
    options:  none
    error:    exact
    raises:   nothing
    source:   the ONNX operator definitions
    """

    name = "canonicalize"
    effect = Effect.EXACT
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        dims = Dims()
        for scope in graphs(graph):
            for node in scope:
                if node.graph is scope and not node.domain:
                    _rewrite(node, ctx, dims)
        fuse(graph, ctx)


def _rewrite(node: Node, ctx: Ctx, dims: Dims) -> None:
    site, changed = describe(node), False
    for _ in range(_MOST):
        dims.learn(node)
        if not any(rule(node, ctx, dims) for rule in RULES.get(node.op_type, ())):
            break
        changed = True
        if node.graph is None:
            break
    if changed:
        ctx.did(site)
