"""A model that arrives quantized becomes the float model that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ir.graph import Graph, Node, Value, array, attribute, graphs
from passes.core import Ctx, Effect, Pass, register

from .integer_layers import MOVERS, RULES, Reals, Unreadable, decode, product, written
from .rules.copies import bypass

PRODUCTS = ("MatMulInteger", "ConvInteger")
QUANTIZERS = (("", "QuantizeLinear"), ("", "DynamicQuantizeLinear"))
LEFT_OVER = (*PRODUCTS, "QuantizeLinear", "DynamicQuantizeLinear", "Mul", "Cast")


@register
@dataclass(frozen=True)
class Dequantize(Pass):
    """Take the rounding out of a quantized model, so that it can be quantized anew.

    rewrite:  y = Cast(MatMulInteger(DynamicQuantizeLinear(x), wq)) * (sx * sw)
              -->
              y = MatMul(x, (wq - zw) * sw)
    shapes:   as before. QuantizeLinear and DequantizeLinear pairs go; constants are decoded;
              MatMulInteger, ConvInteger, QLinearConv, QLinearMatMul, QGemm and the other QLinear
              ops become the float op
    options:  none
    error:    the weights stay as rounded; the rounding of values goes. Codes that begin at zero cut
              off what is negative, which is how a Relu (0 to 6: Relu6) before them is written: it
              is put back
    raises:   nothing; skips nodes whose floats cannot be told, and keeps the codes they read
    source:   the ONNX definitions of these operators
    """

    name = "dequantize"
    effect = Effect.LOSSY
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        reals, old = Reals(ctx.edit), []
        for scope in graphs(graph):
            for node in list(scope):
                if node.graph is not scope:
                    continue
                old.append(node)
                try:
                    self._node(node, reals, ctx)
                except Unreadable as why:
                    ctx.skip(node, str(why))
        makers = [value.producer() for value in reals.known]
        ctx.edit.remove_dead(*{n for n in (*makers, *old) if n is not None and _integer(n)})
        if ctx.sites:
            ctx.edit.infer()  # contrib ops had hidden the shapes

    def _node(self, node: Node, reals: Reals, ctx: Ctx) -> None:
        kind = (node.domain, node.op_type)
        if kind in QUANTIZERS:
            x = node.inputs[0]
            if x is not None and array(x) is None:
                static = node.op_type == "QuantizeLinear"
                kept = reals.cut(node, x, *_pair(node.inputs[1:])) if static else x
                reals.known[node.outputs[0]] = kept
        elif kind == ("", "DequantizeLinear"):
            let_read(node, _decoded(node, reals), reals, ctx)
            ctx.did(node)
        elif not node.domain and node.op_type in PRODUCTS:
            last, value = product(node, reals)
            let_read(last, value, reals, ctx)
            ctx.did(node)
        elif node.op_type in MOVERS and not node.domain:
            if node.inputs[0] in reals.known:
                reals.known |= zip(node.outputs, RULES[kind](node, reals), strict=False)
        elif kind in RULES:
            self._layer(node, RULES[kind](node, reals)[0], reals, ctx)
            ctx.did(node)

    def _layer(self, node: Node, value: Value, reals: Reals, ctx: Ctx) -> None:
        """The layer's readers read the float; those that want codes get them from there."""
        scale, zero = written(node)
        if scale is None:
            let_read(node, value, reals, ctx)
            return
        codes, value = node.outputs[0], reals.cut(node, value, scale, zero)
        parts = [value, scale, *([zero] if zero is not None else [])]
        made = ctx.edit.node("QuantizeLinear", parts, like=codes.name or "codes", before=node)
        ctx.edit.replace(codes, made.outputs[0])
        reals.known[made.outputs[0]] = value
        ctx.edit.remove(node)


def let_read(node: Node, value: Value, reals: Reals, ctx: Ctx) -> None:
    """Readers of a node's output read `value`; an output of the graph keeps its name."""
    if value in reals.unnamed and value.graph is node.graph:
        reals.unnamed.remove(value)
        ctx.edit.replace(node.outputs[0], value)
        ctx.edit.remove(node)
        return
    if bypass(node, value, ctx):
        return
    made = ctx.edit.node("Identity", [value], like=node.outputs[0].name or "y", before=node)
    ctx.edit.replace(node.outputs[0], made.outputs[0])
    ctx.edit.remove(node)


def _pair(parts: Sequence[Value | None]) -> tuple[Value | None, Value | None]:
    return parts[0], parts[1] if len(parts) > 1 else None


def _decoded(node: Node, reals: Reals) -> Value:
    codes, scale, *zero = node.inputs
    if codes is not None and codes in reals.known:
        return reals.known[codes]
    numbers, size = array(codes), array(scale)
    origin = array(zero[0]) if zero else None
    if numbers is None or size is None or codes is None:
        raise Unreadable("its codes come from no float")
    real = decode(
        numbers, size, origin, attribute(node, "axis", 1), attribute(node, "block_size", 0)
    )
    return reals.constant(real, codes)


def _integer(node: Node) -> bool:
    """Whether a node only served the codes: it may go when nothing reads it."""
    return node.op_type in LEFT_OVER or (node.domain, node.op_type) in RULES
