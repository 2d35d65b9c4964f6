"""quant.Hadamard: the transform of ir/hadamard.py as an op that stays in the graph.

    %y = quant.Hadamard:12x64(%x, %h12, %h64)        y = x (h12 (x) h64) over the last axis

The factors are constants (scaled by 1/sqrt of their orders), shared by the nodes of one pass. Where
their orders do not multiply to the whole axis, it is cut into blocks.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from . import hadamard
from .errors import PipelineError, VerifyError
from .graph import QUANT_DOMAIN, Names, Node, Value

OP = "Hadamard"


def body(overload: str) -> str:
    """The function at these orders: each factor a MatMul on its own axis of a reshaped x."""
    sizes = orders(overload)
    names = [f"h{i}" for i in range(len(sizes))]
    lines = ["shape = Shape(x)"]
    value = "x"
    for i, name in enumerate(names):
        behind = math.prod(sizes[i + 1 :])
        target = [-1, sizes[i]] if behind == 1 else [-1, sizes[i], behind]
        text = ", ".join(map(str, target))
        lines += [
            f"to{i} = Constant<value = int64[{len(target)}] {{{text}}}>()",
            f"cut{i} = Reshape({value}, to{i})",
        ]
        if behind == 1:
            lines.append(f"y{i} = MatMul(cut{i}, {name})")
        else:
            lines += [f"turned{i} = Transpose<perm = [1, 0]>({name})"]
            lines.append(f"y{i} = MatMul(turned{i}, cut{i})")
        value = f"y{i}"
    lines.append(f"y = Reshape({value}, shape)")
    return f"{OP} (x, {', '.join(names)}) => (y) {{ {chr(10).join(lines)} }}"


def orders(overload: str) -> tuple[int, ...]:
    """The factors' orders. PipelineError when the text is not AxBx..."""
    parts = overload.split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise PipelineError(
            f"'{overload}' are no orders of factors", hint="write them as in quant.Hadamard:12x64"
        )
    return tuple(map(int, parts))


def factors(order: int, dtype: np.dtype | None = None) -> list[np.ndarray]:
    """The constants (f32 without a dtype) whose Kronecker product is H of this order."""
    kind = np.dtype(np.float32) if dtype is None else dtype
    return [(part / np.sqrt(len(part))).astype(kind) for part in hadamard.parts(order)]


def make(value: Value, factors: list[Value], names: Names, like: str) -> Node:
    """A node over the last axis of a value; `Edit.hadamard` makes the factors."""
    sizes = [int(f.shape[0]) for f in factors if f.shape is not None]  # type: ignore[arg-type]
    result = onnx_ir.val(names.fresh(f"{like}.hadamard"), shape=value.shape)
    result.type = value.type
    return Node(
        QUANT_DOMAIN, OP, [value, *factors], overload="x".join(map(str, sizes)), outputs=[result],
        name=names.fresh(f"{like}.{OP}"),
    )  # fmt: skip


def check(node: Node) -> None:
    """Raise VerifyError unless the factors are square, of the orders that the overload says, and
    divide x's last axis."""
    try:
        sizes = orders(node.overload)
    except PipelineError as error:
        raise VerifyError(error.cause, at=node, hint=error.hint) from None
    if len(node.inputs) != 1 + len(sizes) or None in node.inputs or len(node.outputs) != 1:
        raise VerifyError(
            f"{OP} at {node.overload} has {1 + len(sizes)} inputs and one output, found "
            f"{len(node.inputs)} and {len(node.outputs)}",
            at=node, hint="make it with ir.edit.Edit.hadamard",
        )  # fmt: skip
    for size, factor in zip(sizes, node.inputs[1:], strict=True):
        shape = None if factor is None or factor.shape is None else tuple(factor.shape)
        if shape is not None and shape != (size, size):
            raise VerifyError(
                f"factor %{factor.name if factor else ''} has shape {list(shape)}, expected "
                f"{[size, size]}",
                at=node, hint="the overload names the factors' orders",
            )  # fmt: skip
    x = node.inputs[0]
    width = x.shape[-1] if x is not None and x.shape is not None and len(x.shape) else None
    if isinstance(width, int) and width % math.prod(sizes):
        raise VerifyError(
            f"blocks of {math.prod(sizes)} do not divide the {width} channels of "
            f"%{x.name if x else ''}",
            at=node, hint="choose factors whose orders multiply to a divisor of the width",
        )  # fmt: skip
