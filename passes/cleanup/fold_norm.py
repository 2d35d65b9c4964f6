"""Fold a normalization's gain and bias into the linear layers that read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.analysis.idioms.base import is_op
from ir.analysis.rotations.vectors import Vectors, ahead
from ir.graph import Graph, Node, Value, array, attribute, graphs, rank
from passes.core import Ctx, Effect, Pass, register

from .linear import Linear, layer, rewrite, scale_inputs
from .walk import drop_unread, only_reader

NORMS = ("LayerNormalization", "RMSNormalization")
ROWS = (
    "Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile",
    "Gather", "Slice", "Split",
)  # fmt: skip
"""Ops that leave every row of channels as it is, wherever they put it."""


@register
@dataclass(frozen=True)
class FoldNorm(Pass):
    """Move the gain and bias of LayerNormalization and RMSNormalization into all its readers.

    rewrite:  h = LayerNormalization(x, gain, bias); y = MatMul(h, W) + b
              -->
              h = LayerNormalization(x, 1, 0);       y = MatMul(h, gain * W) + (b + bias @ W)
    shapes:   gain, bias [C], the normalized axis being the last; W [C, N] (Gemm: either way round)
    options:  none
    error:    exact but for rounding; computed in float64
    raises:   nothing; skips a norm that anything else than such layers reads, be it behind ops that
              choose or order rows
    source:   SliceGPT, arXiv:2401.15024, section 3 (folding the norm's diagonal)
    """

    name = "fold_norm"
    effect = Effect.EXACT
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for scope in graphs(graph):
            for node in scope:
                if node.op_type in NORMS and not node.domain and node.graph is scope:
                    reason = _fold(node, ctx)
                    if reason:
                        ctx.skip(node, reason)


def _fold(node: Node, ctx: Ctx) -> str:
    """Fold one norm; '' when done (or nothing is left to fold), else why not."""
    gain = array(node.inputs[1])
    bias = array(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if gain is None or (len(node.inputs) > 2 and node.inputs[2] is not None and bias is None):
        return "its gain or bias is computed, not constant"
    if gain.ndim != 1 or (bias is not None and bias.ndim != 1) or not _last_axis(node):
        return "it normalizes more than the last axis"
    s = gain.astype(np.float64)
    t = np.zeros_like(s) if bias is None else bias.astype(np.float64)
    if (s == 1).all() and not t.any():
        return ""
    found, rows, reason = _layers(node, len(s), shifted=bool(t.any()))
    if reason:
        return reason
    plans = [_plan(each, s, t) for each in found]
    if any(plan is None for plan in plans):
        return "a layer that reads it has a bias that is not a constant row"
    for value in rows:
        ctx.edit.rename(value, f"{value.name}.plain")
    for each, (weight, row) in zip(found, plans, strict=True):  # type: ignore[misc]
        _apply(each, weight, row, ctx)
    _make_plain(node, s, t, gain.dtype, ctx)
    ctx.did(node)
    return ""


def _last_axis(node: Node) -> bool:
    axis = attribute(node, "axis", -1)
    return axis == -1 or axis + 1 == rank(node.inputs[0])


def _layers(node: Node, channels: int, *, shifted: bool) -> tuple[list[Linear], list[Value], str]:
    """The layers that read a norm, the values behind it that they read it by, and why none can."""
    found, values = [], [node.outputs[0]]
    for output in values:
        if output.is_graph_output():
            return [], [], "the graph returns its output"
        for use in output.uses():
            if is_op(use.node, "Shape", "Size"):
                continue
            rows = _rows_of(use.node, channels) if use.idx == 0 else None
            if rows is not None:
                values += rows
                continue
            reader, reason = _reader(use.node, use.idx, channels, shifted=shifted)
            if reader is None:
                return [], [], reason
            found.append(reader)
    return found, values[1:], "" if found else "nothing reads it"


def _reader(node: Node, index: int, channels: int, *, shifted: bool) -> tuple[Linear | None, str]:
    """The layer that a node is, if it contracts the normalized axis, or why not."""
    reader, name = layer(node), f"{node.op_type} '{node.name}'"
    if reader is None or index != 0 or node.op_type not in ("MatMul", "Gemm"):
        return None, f"{name} reads it and is no constant linear layer"
    if attribute(node, "transA", 0):
        return None, f"{name} contracts another axis"
    if reader.weight.shape[1 if attribute(node, "transB", 0) else 0] != channels:
        return None, f"{name} does not contract the normalized axis"
    after = only_reader(node.outputs[0])
    if node.op_type == "MatMul" and after is not None and shifted:
        return _with_add(reader, after), ""
    return reader, ""


def _rows_of(node: Node, channels: int) -> list[Value] | None:
    """The outputs of an op that only chooses, repeats or orders rows of channels, or None."""
    size = rank(node.inputs[0])
    if size is None or not is_op(node, *ROWS):
        return None
    found = list(ahead(node, Vectors(size - 1, channels)))
    whole = all(v is not None and v.axis == (rank(out) or 0) - 1 for out, v in found)
    return [out for out, _ in found] if whole else None


def _with_add(reader: Linear, after: Node) -> Linear:
    from .linear import layer_of

    whole = layer_of(after.outputs[0]) if after.outputs else None
    return whole if whole is not None and whole.node is reader.node else reader


def _plan(found: Linear, s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    bias = found.bias()
    if bias is None:
        return None
    op = found.node.op_type
    transposed = bool(attribute(found.node, "transB", 0))
    weight, extra = scale_inputs(found.weight, s, t, op, 1, transposed)
    return weight, bias + attribute(found.node, "alpha", 1.0) * extra


def _apply(found: Linear, weight: np.ndarray, row: np.ndarray, ctx: Ctx) -> None:
    old = found.output
    result = rewrite(found, weight, row, ctx.edit)
    if not isinstance(result, str) and result is not old:
        ctx.edit.replace(old, result)


def _make_plain(node: Node, s: np.ndarray, t: np.ndarray, dtype: np.dtype, ctx: Ctx) -> None:
    """Gain one, no bias; the output means something else now, so it takes another name."""
    old = [node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None]
    ones = ctx.edit.constant(np.ones(len(s), dtype), f"{node.inputs[1].name}.one", at=node)  # type: ignore
    ctx.edit.set_input(node, 1, ones)
    if len(node.inputs) > 2:
        ctx.edit.set_input(node, 2, None)
    ctx.edit.rename(node.outputs[0], f"{node.outputs[0].name}.plain")
    drop_unread(ctx.edit, old)
