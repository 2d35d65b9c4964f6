"""Gelu, Swish (SiLU, quick-GELU), HardSwish, HardSigmoid, Mish, however they are spelled."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ir.analysis.idioms.algebra import Polynomial, arguments, equals, polynomial, results
from ir.analysis.idioms.base import Idiom, close, producer
from ir.graph import Node, Value, attribute, scalar

_ERF: Polynomial = {(1,): 1 / math.sqrt(2)}
_TANH: Polynomial = {(1,): math.sqrt(2 / math.pi), (3,): math.sqrt(2 / math.pi) * 0.044715}
_HALF_GATE: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
_GATE: Polynomial = {(1, 1): 1.0}


def erf_gelu(anchor: Node) -> Iterator[Idiom]:
    """x/2 (1 + erf(x / sqrt 2)), from its Erf."""
    for x in _solutions(anchor, _ERF):
        yield from _ends(anchor, x, _HALF_GATE, "Gelu", {"approximate": "none"})


def tanh_forms(anchor: Node) -> Iterator[Idiom]:
    """The tanh form of GELU, and Mish = x tanh(softplus x), from their Tanh."""
    for x in _solutions(anchor, _TANH):
        yield from _ends(anchor, x, _HALF_GATE, "Gelu", {"approximate": "tanh"})
    softplus = producer(anchor.inputs[0], "Softplus")
    if softplus is not None and softplus.inputs[0] is not None:
        yield from _ends(anchor, softplus.inputs[0], _GATE, "Mish", {}, (softplus,))


def sigmoid_forms(anchor: Node) -> Iterator[Idiom]:
    """x sigmoid(alpha x): SiLU with alpha 1, quick-GELU with alpha 1.702."""
    assert anchor.inputs[0] is not None
    for x in arguments(anchor.inputs[0], depth=2):
        inner = polynomial(anchor.inputs[0], [x], {})
        alpha = (inner or {}).get((1,))
        if alpha and inner is not None and equals(inner, {(1,): alpha}):
            yield from _ends(anchor, x, _GATE, "Swish", {"alpha": alpha})


def hard_sigmoid_gate(anchor: Node) -> Iterator[Idiom]:
    """x HardSigmoid(x) with slope 1/6 and offset 1/2."""
    x = anchor.inputs[0]
    slope, offset = attribute(anchor, "alpha", 0.2), attribute(anchor, "beta", 0.5)
    if x is not None and close(slope, 1 / 6) and close(offset, 0.5):
        yield from _ends(anchor, x, _GATE, "HardSwish", {})


def relu6_forms(anchor: Node) -> Iterator[Idiom]:
    """x clip(x + 3, 0, 6) / 6 (HardSwish) and clip(x + 3, 0, 6) / 6 (HardSigmoid)."""
    if not clips_0_6(anchor):
        return
    for x in _solutions(anchor, {(1,): 1.0, (0,): 3.0}):
        yield from _ends(anchor, x, {(1, 1): 1 / 6}, "HardSwish", {})
        slope = {"alpha": 1 / 6, "beta": 0.5}
        yield from _ends(anchor, x, {(0, 1): 1 / 6}, "HardSigmoid", slope)


def clips_0_6(node: Node) -> bool:
    low, high = attribute(node, "min"), attribute(node, "max")
    if len(node.inputs) > 1:
        low = scalar(node.inputs[1])
    if len(node.inputs) > 2:
        high = scalar(node.inputs[2])
    return low == 0 and high == 6


def _solutions(anchor: Node, inner: Polynomial) -> Iterator[Value]:
    """The values x of which the anchor's input is the polynomial `inner`."""
    assert anchor.inputs[0] is not None
    for x in arguments(anchor.inputs[0]):
        if equals(polynomial(anchor.inputs[0], [x], {}), inner):
            yield x


def _ends(
    anchor: Node,
    x: Value,
    formula: Polynomial,
    kind: str,
    attributes: dict,
    more: tuple[Node, ...] = (),
) -> Iterator[Idiom]:
    """The idioms that end where `formula` of (x, the anchor's output) is complete."""
    for end in results(anchor.outputs[0]):
        used: dict[int, Node] = {}
        if not equals(polynomial(end, [x, anchor.outputs[0]], used), formula):
            continue
        if not more and anchor.inputs[0] is not None:
            polynomial(anchor.inputs[0], [x], used)
        nodes = (*used.values(), anchor, *more)
        if end.dtype is None or x.dtype is None or end.dtype == x.dtype:
            yield Idiom(kind, nodes, (x,), (end,), attributes)
