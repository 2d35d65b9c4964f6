"""Decomposed ops become the one standard op that says the same."""

from __future__ import annotations

import numpy as np

from ir.analysis.idioms import Idiom, find
from ir.graph import Graph, Node, Value, constant, rank
from passes.core import Ctx

KINDS: tuple[str, ...] = (
    "LayerNormalization",
    "RMSNormalization",
    "Gelu",
    "HardSwish",
    "Softmax",
    "Identity",
)
"""Fused. Swish stays Sigmoid and Mul, which integer backends know; attention and rotary embedding
stay open, for placement decides inside them."""


def fuse(graph: Graph, ctx: Ctx) -> None:
    """Replace every closed idiom of `KINDS` whose inputs are laid out as its op wants them."""
    for idiom in find(graph):
        if idiom.kind in KINDS and len(idiom.nodes) > 1 and not idiom.prepare and not idiom.extra:
            _fuse(idiom, ctx)


def _fuse(idiom: Idiom, ctx: Ctx) -> None:
    output = idiom.outputs[0]
    last = output.producer()
    x = idiom.inputs[0]
    if last is None or x is None or len(idiom.outputs) != 1 or last.graph is None:
        return
    inputs = _inputs(idiom, last, ctx)
    if inputs is None:
        return
    made = ctx.edit.node(idiom.kind, inputs, like=str(output.name), before=last, **idiom.attributes)
    ctx.did(last)
    ctx.edit.replace(output, made.outputs[0])
    ctx.edit.remove_dead(last)


def _inputs(idiom: Idiom, last: Node, ctx: Ctx) -> list[Value | None] | None:
    """The op's inputs; a norm without a gain gets ones, which the operator demands."""
    inputs = list(idiom.inputs)
    while len(inputs) > 1 and inputs[-1] is None:
        inputs.pop()
    if "Normalization" not in idiom.kind:
        return inputs
    x, axis = idiom.inputs[0], idiom.attributes.get("axis", -1)
    shape, dimensions = x.shape, rank(x)  # type: ignore[union-attr]
    if shape is None or not dimensions or axis not in (-1, dimensions - 1):
        return None
    channels = shape[-1]
    for value in inputs[1:]:
        row = constant(value)
        if value is not None and (row is None or tuple(row.shape) != (channels,)):
            return None
    if len(inputs) < 2 or inputs[1] is None:
        if not isinstance(channels, int) or x.dtype is None:  # type: ignore[union-attr]
            return None
        ones = ctx.edit.constant(np.ones(channels, x.dtype.numpy()), f"{last.name}.gain", at=last)  # type: ignore
        inputs[1:2] = [ones]
    return inputs
