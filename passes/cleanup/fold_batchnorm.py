"""Fold per-channel scales and shifts into the linear layers beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.graph import Graph, Node, Value, array, attribute, graphs, rank
from passes.core import Ctx, Effect, Pass, register

from .linear import Linear, layer, layer_of, rewrite, scale_inputs, scale_outputs
from .walk import drop_unread, only_reader


def batchnorm_map(
    gain: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(s, t), float64[C]: s * x + t is what an inference BatchNormalization computes."""
    wide = [a.astype(np.float64) for a in (gain, shift, mean, variance)]
    s = wide[0] / np.sqrt(wide[3] + epsilon)
    return s, wide[1] - wide[2] * s


@dataclass(frozen=True)
class ChannelMap:
    """y = s * x + t per channel, as one node computes it."""

    node: Node
    source: Value
    s: np.ndarray
    t: np.ndarray
    shape: tuple[int, ...] | None
    """Shape of the node's constant; None: one number per channel of axis 1 (BatchNormalization)."""

    def fits(self, found: Linear) -> bool:
        """Whether the map runs along the layer's output channels (or is one number)."""
        if self.shape is None:
            wanted = 2 if found.rank is None else found.rank
            return self.s.size == found.channels and found.axis == 1 - wanted
        if found.rank is None and len(self.shape) > 1:
            return False
        if found.rank is not None and len(self.shape) > found.rank:
            return False
        along = self.shape[found.axis] if len(self.shape) >= -found.axis else 1
        return along == self.s.size and self.s.size in (1, found.channels)


@register
@dataclass(frozen=True)
class FoldBatchnorm(Pass):
    """Fold BatchNormalization, and products and sums with a constant per channel, into the layer.

    rewrite:  y = Conv(x, W, b); z = BatchNormalization(y, gain, shift, mean, variance)
              -->
              z = Conv(x, s * W, s * b + t),  s = gain / sqrt(variance + eps), t = shift - s * mean
    shapes:   s, t [C], one per output channel of a Conv, ConvTranspose (grouped too), Gemm or
              MatMul; Mul, Div, Add and Sub by a constant of one per channel likewise. A
              BatchNormalization before a Conv or Gemm folds into its input channels (a Conv: when
              nothing is padded, or t is 0); one without a layer becomes Mul and Add
    options:  none
    error:    exact but for rounding; computed in float64
    raises:   nothing; skips a layer whose output others read, and weights that would not be finite
    source:   Jacob et al., CVPR 2018, section 3.2 (batch normalization folding)
    """

    name = "fold_batchnorm"
    effect = Effect.EXACT
    optional = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for scope in graphs(graph):
            for node in scope:
                found = channel_map(node, ctx) if node.graph is scope else None
                if found is None:
                    continue
                if _fold_back(found, ctx) or node.op_type != "BatchNormalization":
                    continue
                if not _fold_ahead(found, ctx):
                    _spell_out(found, ctx)


def channel_map(node: Node, ctx: Ctx) -> ChannelMap | None:
    """The map per channel that a node computes, or None."""
    if node.domain:
        return None
    if node.op_type == "BatchNormalization":
        return _batchnorm(node, ctx)
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    constants = [array(value) for value in node.inputs]
    if (constants[0] is None) == (constants[1] is None):
        return None
    at = 0 if constants[0] is not None else 1
    row: np.ndarray = constants[at]  # type: ignore[assignment]
    if not np.issubdtype(row.dtype, np.floating) or row.size != max(row.shape, default=1):
        return None
    s, t = _scale_and_shift(
        node.op_type, row.astype(np.float64).reshape(-1), constant_first=at == 0
    )
    source = node.inputs[1 - at]
    return (
        None
        if s is None or t is None or source is None
        else ChannelMap(node, source, s, t, row.shape)
    )


def _scale_and_shift(op: str, row: np.ndarray, *, constant_first: bool):
    one, zero = np.ones_like(row), np.zeros_like(row)
    match op:
        case "Mul":
            return row, zero
        case "Add":
            return one, row
        case "Sub":
            return (-one, row) if constant_first else (one, -row)
        case _ if constant_first or not row.all():  # c / x is not linear
            return None, None
    return 1 / row, zero


def _batchnorm(node: Node, ctx: Ctx) -> ChannelMap | None:
    parts = [array(value) for value in node.inputs[1:]]
    if attribute(node, "training_mode", 0) or any(v.uses() for v in node.outputs[1:]):
        ctx.skip(node, "it is in training mode: its statistics come from the batch")
        return None
    if any(part is None for part in parts):
        ctx.skip(node, "its parameters are computed, not constant")
        return None
    s, t = batchnorm_map(*parts, attribute(node, "epsilon", 1e-5))  # type: ignore[arg-type]
    return ChannelMap(node, node.inputs[0], s, t, None)  # type: ignore[arg-type]


def _fold_back(found: ChannelMap, ctx: Ctx) -> bool:
    """Into the layer that made the input."""
    before = layer_of(found.source)
    if before is None or not found.fits(before):
        return False
    if before.node.op_type == "MatMul" and before.add is None and not (found.s != 1).any():
        return False  # it is the layer's bias already
    if only_reader(found.source) is not found.node:
        if (
            found.shape is None
        ):  # a plain Mul or Add beside other readers is nobody's disappointment
            ctx.skip(
                found.node, f"others read %{found.source.name}, the output of its layer as well"
            )
        return False
    bias = before.bias()
    if bias is None:
        ctx.skip(found.node, f"the bias of {before.node.name} is not a constant row")
        return False
    s = np.broadcast_to(found.s, (before.channels,))
    weight = before.weight
    if (found.s != 1).any():
        transposed = bool(attribute(before.node, "transB", 0))
        weight = scale_outputs(weight, s, before.node.op_type, before.group, transposed)
    result = rewrite(before, weight, s * bias + found.t, ctx.edit)
    if isinstance(result, str):
        ctx.skip(found.node, result)
        return False
    _retire(found, result, ctx)
    return True


def _fold_ahead(found: ChannelMap, ctx: Ctx) -> bool:
    """Into the only layer that reads the output."""
    reader = only_reader(found.node.outputs[0])
    after = layer(reader)
    if reader is None or after is None or reader.inputs[0] is not found.node.outputs[0]:
        return False
    op = reader.op_type
    padded = any(attribute(reader, "pads", ())) or attribute(reader, "auto_pad", "NOTSET") in (
        "SAME_UPPER", "SAME_LOWER",
    )  # fmt: skip
    plain = op == "Conv" or (op == "Gemm" and not attribute(reader, "transA", 0))
    bias = after.bias() if plain else None
    if bias is None or (padded and found.t.any()):
        return False
    transposed = bool(attribute(reader, "transB", 0))
    weight, extra = scale_inputs(after.weight, found.s, found.t, op, after.group, transposed)
    alpha = attribute(reader, "alpha", 1.0) if op == "Gemm" else 1.0
    output = reader.outputs[0]
    name = output.name
    result = rewrite(after, weight, bias + alpha * extra, ctx.edit)
    if isinstance(result, str) or result.name != name:
        return False
    ctx.did(found.node)
    ctx.edit.set_input(reader, 0, found.source)
    drop_unread(ctx.edit, [found.node.outputs[0]])
    return True


def _spell_out(found: ChannelMap, ctx: Ctx) -> bool:
    """Mul and Add in place of a BatchNormalization that stands alone."""
    output, node = found.node.outputs[0], found.node
    dims = rank(found.source) or rank(output)
    kind = found.source.dtype
    if dims is None or kind is None:
        ctx.skip(node, "no layer beside it takes it, and the rank of its input is not known")
        return False
    shape = (-1, *[1] * (dims - 2))
    edit, like = ctx.edit, str(output.name)
    s, t = (a.astype(kind.numpy()).reshape(shape) for a in (found.s, found.t))
    scale = edit.constant(s, f"{like}.scale", at=node)
    shift = edit.constant(t, f"{like}.shift", at=node)
    scaled = edit.node("Mul", [found.source, scale], like=f"{like}.scaled", before=node)
    scaled.outputs[0].shape, scaled.outputs[0].type = output.shape, output.type
    shifted = edit.node("Add", [scaled.outputs[0], shift], like=like, before=node)
    _retire(found, shifted.outputs[0], ctx)
    return True


def _retire(found: ChannelMap, result: Value, ctx: Ctx) -> None:
    """The map's output is the result now; its node goes."""
    node, inputs = found.node, list(found.node.inputs)
    ctx.did(node)
    ctx.edit.replace(node.outputs[0], result)
    ctx.edit.remove(node)
    drop_unread(ctx.edit, inputs)
