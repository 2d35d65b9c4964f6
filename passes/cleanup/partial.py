"""Shape inputs with unknown dimensions: the constant that means the same, if there is one."""

from __future__ import annotations

import numpy as np

from ir.graph import Node, attribute, constant
from passes.core import Ctx

from .dims import Dims
from .sizes import Shape, reshaped
from .symbols import Poly
from .walk import drop_unread

END = np.iinfo(np.int64).max


def reshape_target(source: Shape | None, wanted: list, *, allowzero: bool) -> list[int] | None:
    """The constant Reshape target for sizes `wanted` of a tensor shaped `source`, or None.

    0 copies the input's size on the same axis, one -1 stands for the only size left unknown.
    """
    if allowzero and 0 in [n for n in wanted if isinstance(n, int)]:
        return None
    found = _copies_and_one(source, wanted)
    if found is None and source is not None and -1 in wanted:
        solved = reshaped(source, np.array(wanted, object), allowzero=allowzero)
        found = _copies_and_one(source, list(solved))
    return found


def _copies_and_one(source: Shape | None, wanted: list) -> list[int] | None:
    result = []
    for axis, size in enumerate(wanted):
        if isinstance(size, int):
            result.append(size)
        elif source is not None and axis < len(source) and source[axis] == size:
            result.append(0)
        else:
            result.append(-1)
    return result if result.count(-1) <= 1 else None


def expand_target(source: Shape | None, wanted: list) -> list[int] | None:
    """The Expand target likewise: 1 keeps the input's own size."""
    if source is None:
        return None
    padded = [None] * (len(wanted) - len(source)) + list(source)
    padded = padded[len(padded) - len(wanted) :]
    result = [
        size if isinstance(size, int) else 1 if size == own else None
        for size, own in zip(wanted, padded, strict=True)
    ]
    return None if None in result else result  # type: ignore[return-value]


def _slice_ends(node: Node, dims: Dims, wanted: list) -> list[int] | None:
    """Ends that are the axis's own size say "to the end"."""
    source = dims.shape(node.inputs[0])
    axes = dims.numbers(node.inputs[3]) if len(node.inputs) > 3 else None
    steps = dims.numbers(node.inputs[4]) if len(node.inputs) > 4 else None
    if source is None or (len(node.inputs) > 4 and (steps is None or any(s <= 0 for s in steps))):
        return None
    if len(node.inputs) > 3 and axes is None:
        return None
    places = range(len(wanted)) if axes is None else [int(a) for a in axes]
    result = [
        end if isinstance(end, int) else END if end == source[axis] else None
        for axis, end in zip(places, wanted, strict=True)
    ]
    return None if None in result else result  # type: ignore[return-value]


def _found(node: Node, dims: Dims, wanted: list) -> list[int] | None:
    source = dims.shape(node.inputs[0])
    match node.op_type:
        case "Reshape":
            zero = bool(attribute(node, "allowzero"))
            return reshape_target(source, wanted, allowzero=zero)
        case "Expand":
            return expand_target(source, wanted)
        case "Slice":
            return _slice_ends(node, dims, wanted)
    return None


_SHAPE_INPUT = {"Reshape": 1, "Expand": 1, "Slice": 2}


def simplify_shape_input(node: Node, ctx: Ctx, dims: Dims) -> bool:
    """Give a Reshape, Expand or Slice a constant in place of computed sizes, if there is one."""
    at = _SHAPE_INPUT.get(node.op_type) if not node.domain else None
    old = node.inputs[at] if at is not None and len(node.inputs) > at else None
    if at is None or old is None or constant(old) is not None:
        return False
    numbers = dims.numbers(old)
    if numbers is None or numbers.ndim != 1 or not any(isinstance(n, Poly) for n in numbers):
        return False
    try:
        found = _found(node, dims, list(numbers))
    except (ArithmeticError, IndexError, TypeError):
        return False  # the sizes contradict each other, or their quotient has no name
    if found is None:
        return False
    value = ctx.edit.constant(
        np.array(found, np.int64), f"{node.outputs[0].name}.{node.op_type}", at=node
    )
    if node.op_type == "Reshape":
        ctx.edit.attribute(node, "allowzero", None)
    ctx.edit.set_input(node, at, value)
    drop_unread(ctx.edit, [old])
    return True
