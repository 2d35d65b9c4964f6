"""Remove what no output needs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ir.graph import QUANT_DOMAIN, Graph, Node, graphs
from passes.core import Ctx, Effect, Pass, register


@register
@dataclass(frozen=True)
class DropDead(Pass):
    """Remove nodes, constants and functions that no graph output depends on.

    rewrite:  a = Relu(x); b = Exp(x); return a
              -->
              a = Relu(x); return a
    shapes:   any; optional outputs at the end of a node's list (a mask, indices) go as well
    options:  none
    error:    exact; inputs and outputs of the graph are never removed
    raises:   nothing
    source:   Aho, Sethi, Ullman, Compilers (1986), 10.2
    """

    name = "drop_dead"
    effect = Effect.EXACT
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for scope in reversed(list(graphs(graph))):
            for node in reversed(list(scope)):
                if node.graph is not None and _unread(node):
                    ctx.did(node)
                    ctx.edit.remove(node)
                elif len(node.outputs) > 1:
                    _drop_outputs(node, ctx)
        _drop_constants(graph, ctx)
        _drop_functions(graph, ctx)


def _unread(node: Node) -> bool:
    return not any(value.uses() or value.is_graph_output() for value in node.outputs)


def _drop_outputs(node: Node, ctx: Ctx) -> None:
    if node.domain or not onnx.defs.has(node.op_type):
        return
    formal = onnx.defs.get_schema(node.op_type).outputs
    count = len(node.outputs)
    while count > 1 and count <= len(formal):
        value = node.outputs[count - 1]
        optional = formal[count - 1].option == onnx.defs.OpSchema.FormalParameterOption.Optional
        if not optional or value.uses() or value.is_graph_output():
            break
        count -= 1
    if count < len(node.outputs):
        ctx.did(node)
        ctx.edit.keep_outputs(node, count)


def _drop_constants(graph: Graph, ctx: Ctx) -> None:
    for scope in graphs(graph):
        for value in list(scope.initializers.values()):
            idle = not value.uses() and not value.is_graph_output()
            if idle and not value.is_graph_input():
                ctx.did(value)
                ctx.edit.drop_constant(value)


def _drop_functions(graph: Graph, ctx: Ctx) -> None:
    """Local functions that nothing calls, and then those that only they called."""
    waiting, called = [graph.graph], set()
    while waiting:
        for node in waiting.pop().all_nodes():
            key = node.op_identifier()
            if key in graph.functions and key not in called:
                called.add(key)
                waiting.append(graph.functions[key].graph)
    for key in [k for k in graph.functions if k not in called and k[0] != QUANT_DOMAIN]:
        ctx.did(f"function {key[0]}.{key[1]}")
        ctx.edit.drop_function(key)
