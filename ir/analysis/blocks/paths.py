"""What a join adds up, and the short ways by which an operand comes from a block's entry."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

from ir.analysis.idioms.base import is_op
from ir.graph import Node, Value, constant, readers

LINEAR = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "ConvInteger", "Attention"}
)
_PROJECTION = frozenset(
    (  # noqa: SIM905
        "Identity Cast BatchNormalization InstanceNormalization GroupNormalization "
        "LayerNormalization RMSNormalization AveragePool MaxPool GlobalAveragePool Pad Resize "
        "Dropout Transpose Slice Reshape Squeeze Unsqueeze"
    ).split()
)
"""What a shortcut may pass besides one linear op."""
_SHORTCUT_LIMIT = 8


def static_values(graph: onnx_ir.Graph) -> set[int]:
    """Ids of values computed from constants and shapes alone: no data comes in through them."""
    found: set[int] = set()
    for node in graph:
        known = (v is None or id(v) in found or constant(v) is not None for v in node.inputs)
        if node.op_type in ("Shape", "Size", "Constant") or all(known):
            found.update(id(v) for v in node.outputs)
    return found


def continues(node: Node) -> bool:
    """Whether a sum goes on in one more Add (x + a + b): it is a part of that one."""
    value = node.outputs[0]
    uses = readers(value)
    return len(uses) == 1 and is_op(uses[0][0], "Add") and not value.is_graph_output()


def terms(join: Node) -> tuple[list[Value], list[Node]]:
    """The computed operands of a join, and the Adds inside it: a sum of sums is one sum."""
    found: list[Value] = []
    inner: list[Node] = []
    pending = list(join.inputs)
    while pending:
        value = pending.pop()
        if value is None or constant(value) is not None:
            continue
        node = value.producer()
        if node is not None and join.op_type == "Add" and is_op(node, "Add") and continues(node):
            inner.append(node)
            pending += node.inputs
        else:
            found.append(value)
    return found, inner


def shortcut(term: Value, static: set[int]) -> Iterator[tuple[Value, bool]]:
    """(value, whether a linear op was passed) along a shortcut that ends in `term`."""
    yield term, False
    projected, value = False, term
    for _ in range(_SHORTCUT_LIMIT):
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return
        inputs = [
            v for v in node.inputs if v is not None and constant(v) is None and id(v) not in static
        ]
        if node.op_type in LINEAR and not projected:
            projected = True
        elif node.op_type not in _PROJECTION and not (
            node.op_type in ("Add", "Mul") and len(inputs) == 1  # a bias or a gain
        ):
            return
        if len(inputs) != 1 and node.op_type not in _PROJECTION:
            return
        value = inputs[0] if inputs else value
        yield value, projected


def way(term: Value, entry: Value, static: set[int]) -> bool | None:
    """Whether the shortcut from entry to the operand holds a linear op; None: it is a branch."""
    found = (projected for value, projected in shortcut(term, static) if value is entry)
    return next(found, None)
