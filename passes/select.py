"""Which nodes an option is about: a small language of structure, for exclusions and overrides.

Conv                 nodes of an op type
depthwise            Conv with one input channel per group
first, last          the first or last node of its kind in execution order (`Conv&first`)
into:Softmax         the output reaches that op type through layout and elementwise ops
from:LayerNormalization   the data input comes from that op type, likewise
below:8192           fewer weights than this
value:/head/*        computes a value whose name matches the glob (for what `ptqc compare` printed)
a&b, !a              both; not
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from ir.errors import PipelineError
from ir.graph import Node, attribute, constant

Test = Callable[[Node], bool]
_THIN = frozenset(
    [
        "Identity",
        "Cast",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Where",
        "Relu",
        "Clip",
        "Slice",
    ]
)
_REACH = 12


def select(text: str, kernels: Sequence[Node]) -> set[int]:
    """Ids (`id(node)`) of those of `kernels` that the selector names."""
    tests = [_test(part.strip(), kernels) for part in text.split("&")]
    return {id(node) for node in kernels if all(test(node) for test in tests)}


def _test(word: str, kernels: Sequence[Node]) -> Test:
    if word.startswith("!"):
        inner = _test(word[1:], kernels)
        return lambda node: not inner(node)
    key, _, argument = word.partition(":")
    if argument:
        return _argument_test(key, argument, word)
    if word == "depthwise":
        return depthwise
    if word in ("first", "last"):
        ends: dict[str, Node] = {}
        for node in kernels if word == "last" else reversed(kernels):
            ends[node.op_type] = node
        chosen = {id(node) for node in ends.values()}
        return lambda node: id(node) in chosen
    if word[:1].isupper():
        return lambda node: node.op_type == word
    raise PipelineError(
        f"cannot read the selector '{word}'",
        hint="use an op type, depthwise, first, last, into:OP, from:OP, below:N, value:GLOB, &, !",
    )


def _argument_test(key: str, argument: str, word: str) -> Test:
    if key == "value":
        return lambda node: any(fnmatch.fnmatchcase(v.name or "", argument) for v in node.outputs)
    if key == "below" and argument.isdigit():
        return lambda node: 0 < weight_count(node) < int(argument)
    if key == "into":
        return lambda node: _reaches(node, argument, forward=True)
    if key == "from":
        return lambda node: _reaches(node, argument, forward=False)
    raise PipelineError(
        f"cannot read the selector '{word}'", hint="into:OP, from:OP, below:N, value:GLOB"
    )


def depthwise(node: Node) -> bool:
    """A Conv whose every group has one input channel."""
    weight = node.inputs[1] if node.op_type == "Conv" and len(node.inputs) > 1 else None
    shape = weight.shape if weight is not None else None
    return shape is not None and attribute(node, "group", 1) > 1 and shape[1] == 1


def weight_count(node: Node) -> int:
    """Numbers in the constant inputs of a node."""
    return sum(t.size for v in node.inputs if (t := constant(v)) is not None)


def _reaches(node: Node, op_type: str, *, forward: bool) -> bool:
    ring = [node]
    for _ in range(_REACH):
        nearby = _after(ring) if forward else _before(ring)
        if any(n.op_type == op_type for n in nearby):
            return True
        ring = [n for n in nearby if n.op_type in _THIN]
        if not ring:
            return False
    return False


def _after(ring: list[Node]) -> list[Node]:
    return [use.node for node in ring for value in node.outputs for use in value.uses()]


def _before(ring: list[Node]) -> list[Node]:
    return [
        p for n in ring for v in n.inputs[:1] if v is not None and (p := v.producer()) is not None
    ]
