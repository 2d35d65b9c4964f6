"""One spelling for arithmetic that exporters spell in several."""

from __future__ import annotations

from ir.graph import Node, attribute, constant, scalar
from passes.cleanup.dims import Dims
from passes.cleanup.walk import drop_unread
from passes.core import Ctx

from . import Rule

COMMUTATIVE = ("Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min")


def constant_right(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """The constant of a commutative op is its second input."""
    if len(node.inputs) != 2:
        return False
    first, second = node.inputs
    if constant(first) is None or constant(second) is not None:
        return False
    ctx.edit.set_input(node, 0, second)
    ctx.edit.set_input(node, 1, first)
    return True


def spell_power(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """x ** 2 is Mul(x, x), x ** 0.5 is Sqrt(x), x ** -1 is Reciprocal(x)."""
    x, exponent = node.inputs
    if x is None or x.dtype is None or not x.dtype.is_floating_point():
        return False
    if len(constant(exponent).shape) if constant(exponent) is not None else True:  # type: ignore
        return False
    value = scalar(exponent)
    made = {2.0: ("Mul", [x, x]), 0.5: ("Sqrt", [x]), -1.0: ("Reciprocal", [x])}.get(value)  # type: ignore
    return made is not None and _becomes(node, *made, ctx)


def spell_reciprocal(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """1 / x is Reciprocal(x); x / c stays, for it rounds otherwise than x * (1 / c)."""
    one, x = node.inputs
    if x is None or constant(one) is None or constant(x) is not None or scalar(one) != 1:
        return False
    if x.dtype is None or not x.dtype.is_floating_point() or len(constant(one).shape):  # type: ignore
        return False
    return _becomes(node, "Reciprocal", [x], ctx)


def cancel_twice(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """-(-x) and not not x."""
    from .copies import bypass

    inner = node.inputs[0].producer() if node.inputs[0] is not None else None
    if inner is None or inner.domain or inner.op_type != node.op_type:
        return False
    return bypass(node, inner.inputs[0], ctx)  # type: ignore[arg-type]


def plain_gemm(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """A Gemm's beta without a third input says nothing."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return False
    if attribute(node, "beta", 1.0) == 1.0:
        return False
    ctx.edit.attribute(node, "beta", None)
    return True


def _becomes(node: Node, op: str, inputs: list, ctx: Ctx) -> bool:
    old = list(node.inputs)
    made = ctx.edit.node(op, inputs, like=str(node.outputs[0].name), before=node)
    ctx.edit.replace(node.outputs[0], made.outputs[0])
    ctx.edit.remove(node)
    drop_unread(ctx.edit, old)
    return True


RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(COMMUTATIVE, (constant_right,)),
    "Pow": (spell_power,),
    "Div": (spell_reciprocal,),
    "Neg": (cancel_twice,),
    "Not": (cancel_twice,),
    "Gemm": (plain_gemm,),
}
