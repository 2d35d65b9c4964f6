"""Multiply-accumulates of one node, by the textbook formula of each op."""

from __future__ import annotations

import math
from collections.abc import Callable

from ir.graph import Node, Value, attribute

Dims = Callable[[Value], tuple[int, ...]]
"""Dims of a value as numbers; raises when one is unknown."""


def of(node: Node, dims: Dims) -> int:
    """Multiply-accumulates of the node, bias adds left out; 0 for an op that is no contraction."""
    rule = _RULES.get(node.op_type)
    return 0 if rule is None or node.domain not in ("", "ai.onnx") else rule(node, dims)


def _at(node: Node, index: int) -> Value:
    value = node.inputs[index]
    assert value is not None, f"{node.op_type} lacks input {index}"
    return value


def _conv(node: Node, dims: Dims) -> int:
    """Every output element sums over channels/group x kernel; W is [out, in / group, *kernel]."""
    return math.prod(dims(node.outputs[0])) * math.prod(dims(_at(node, 1))[1:])


def _conv_transpose(node: Node, dims: Dims) -> int:
    """Every input element is spread over out/group x kernel; W is [in, out / group, *kernel]."""
    return math.prod(dims(_at(node, 0))) * math.prod(dims(_at(node, 1))[1:])


def _matmul(node: Node, dims: Dims) -> int:
    return math.prod(dims(node.outputs[0])) * dims(_at(node, 0))[-1]


def _gemm(node: Node, dims: Dims) -> int:
    inner = dims(_at(node, 0))[0 if attribute(node, "transA", 0) else 1]
    return math.prod(dims(node.outputs[0])) * inner


def _einsum(node: Node, dims: Dims) -> int:
    """Every index takes all its values once: the product of all index sizes (0 for one operand)."""
    if len(node.inputs) < 2:
        return 0
    equation = str(attribute(node, "equation", "")).replace(" ", "").split("->")[0]
    sizes: dict[object, int] = {}
    for term, value in zip(equation.split(","), node.inputs, strict=True):
        assert value is not None
        shape = dims(value)
        before, dots, after = term.partition("...")
        wild = len(shape) - len(before) - len(after) if dots else 0
        # `...` aligns at the right when operands have different numbers of batch axes
        labels = [*before, *range(wild - 1, -1, -1), *after]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def _attention(node: Node, dims: Dims) -> int:
    """Scores and weighted sum over all tokens; causal masking saves nothing here."""
    q, k, v = (dims(_at(node, i)) for i in range(3))
    past = dims(_at(node, 4)) if len(node.inputs) > 4 and node.inputs[4] is not None else (0, 0, 0)
    tokens = k[-2] + past[-2]
    if len(q) == 4:
        return math.prod(q[:3]) * tokens * (q[3] + v[3])
    heads = int(attribute(node, "q_num_heads") or 1)
    value_width = v[2] // int(attribute(node, "kv_num_heads") or 1) * heads
    return q[0] * q[1] * tokens * (q[2] + value_width)


def _recurrent(node: Node, dims: Dims) -> int:
    """Per step, batch and direction: W [dirs, gates, in] and R [dirs, gates, hidden]."""
    steps, batch = dims(_at(node, 0))[:2]
    if attribute(node, "layout", 0):
        steps, batch = batch, steps
    return steps * batch * (math.prod(dims(_at(node, 1))) + math.prod(dims(_at(node, 2))))


_RULES: dict[str, Callable[[Node, Dims], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": lambda node, dims: (
        math.prod(dims(node.outputs[0])) * math.prod(dims(_at(node, 3))[1:])
    ),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Attention": _attention,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
