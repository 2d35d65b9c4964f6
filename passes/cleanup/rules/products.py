"""Matrix products that say more than x W + b say just that."""

from __future__ import annotations

import onnx_ir

from ir.graph import Node, Value, array, attribute, constant, rank
from passes.cleanup.dims import Dims
from passes.cleanup.walk import drop_unread
from passes.core import Ctx

from . import Rule


def plain_factors(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Gemm's alpha goes into a constant weight, its beta into a constant bias."""
    weight = node.inputs[1]
    if constant(weight) is None or constant(node.inputs[0]) is not None:
        return False
    changed = _scale(node, 1, "alpha", ctx)
    return (len(node.inputs) > 2 and _scale(node, 2, "beta", ctx)) or changed


def _scale(node: Node, index: int, name: str, ctx: Ctx) -> bool:
    factor, value = attribute(node, name, 1.0), node.inputs[index]
    numbers = array(value)
    if factor == 1.0 or numbers is None or value is None:
        return False
    scaled = (numbers * numbers.dtype.type(factor)).astype(numbers.dtype)
    ctx.edit.set_input(node, index, ctx.edit.constant(scaled, f"{value.name}.{name}", at=node))
    ctx.edit.attribute(node, name, None)
    drop_unread(ctx.edit, [value])
    return True


def plain_input(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Gemm reads x where it turned Transpose(x), and Transpose(x) where it turned x."""
    x = node.inputs[0]
    if x is None or constant(node.inputs[1]) is None or not attribute(node, "transA", 0):
        return False
    maker = x.producer()
    if maker is not None and not maker.domain and maker.op_type == "Transpose":
        turned = maker.inputs[0]
    else:
        made = ctx.edit.node("Transpose", [x], like=f"{x.name}.T", before=node, perm=[1, 0])
        turned = made.outputs[0]
        turned.type = x.type
        if x.shape is not None:
            turned.shape = onnx_ir.Shape(list(x.shape)[::-1])
    ctx.edit.set_input(node, 0, turned)
    ctx.edit.attribute(node, "transA", None)
    drop_unread(ctx.edit, [x])
    return True


def einsum_product(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Einsum of `...k,kn->...n` or `...k,nk->...n` with a constant matrix: MatMul."""
    if len(node.inputs) != 2 or constant(node.inputs[1]) is None or rank(node.inputs[1]) != 2:
        return False
    x, weight = node.inputs
    if x is None or weight is None or constant(x) is not None:
        return False
    turned = _turned(attribute(node, "equation", ""))
    if turned is None:
        return False
    if turned:
        tensor = onnx_ir.Tensor(array(weight).T, weight.dtype)  # type: ignore[union-attr]
        weight = ctx.edit.constant(tensor, f"{weight.name}.T", at=node)
    inputs: list[Value | None] = list(node.inputs)
    made = ctx.edit.node("MatMul", [x, weight], like=str(node.outputs[0].name), before=node)
    ctx.edit.replace(node.outputs[0], made.outputs[0])
    ctx.edit.remove(node)
    drop_unread(ctx.edit, [value for value in inputs if value is not x])
    return True


def _turned(equation: str) -> bool | None:
    """Whether the weight of a matrix product is stored [N, K]; None for other equations."""
    text = equation.replace(" ", "").replace("...", "@")
    terms, arrow, result = text.partition("->")
    operands = terms.split(",")
    if not arrow or len(operands) != 2 or len(operands[0]) < 2 or len(operands[1]) != 2:
        return None
    (*rest, inner), pair = operands[0], operands[1]
    if len(set(operands[0])) != len(operands[0]) or inner not in pair or pair[0] == pair[1]:
        return None
    outer = pair.replace(inner, "")
    if outer in operands[0] or result != "".join(rest) + outer:
        return None
    return pair == outer + inner


RULES: dict[str, tuple[Rule, ...]] = {
    "Gemm": (plain_factors, plain_input),
    "Einsum": (einsum_product,),
}
