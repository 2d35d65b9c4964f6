"""Round to nearest: the plainest way from Encode(weight) to codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import formats, ops
from ir.errors import PassError
from ir.graph import Graph, Node, array
from ir.qtype import QType
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, register
from passes.sites import Linear, decodes_of, linear

from .limits import PAIRS, fit_pairs, from_kernel_rows, hold_pairs, kernel_rows

LIMIT = "quant.limit"
"""Metadata of an Encode: the rule (`limits.py`) that the kernel puts on the codes."""


def round_weight(
    weight: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, qtype: QType
) -> np.ndarray:
    """Nearest codes of `weight`; the most negative code of a symmetric type stays unused."""
    codes = formats.encode(weight, scale, zero, qtype)
    if zero is None and qtype.signed:
        lowest = np.asarray(-qtype.limits[1], codes.dtype)
        return np.maximum(codes, lowest).astype(codes.dtype)  # numpy widens narrow integers
    return codes


def round_pairs(
    weight: np.ndarray, scale: np.ndarray, site: Linear
) -> tuple[np.ndarray, np.ndarray]:
    """Codes i8 that keep the `pairs` rule, and their scales, in the layout of the weight."""
    rows = kernel_rows(weight, site.inputs, site.output)
    per_row = np.broadcast_to(scale, weight.shape) if scale.ndim else np.full(weight.shape, scale)
    first = kernel_rows(per_row, site.inputs, site.output)[:, :1].astype(np.float32)
    codes, wider = fit_pairs(rows, first)
    if not scale.ndim:  # one scale for all rows: every row takes the widest
        wider = np.full_like(first, wider.max())
        codes = hold_pairs(rows / wider)
    full = np.broadcast_to(wider, rows.shape)
    back = from_kernel_rows(full, weight.shape, site.inputs, site.output)
    cut = tuple(slice(None) if size > 1 else slice(0, 1) for size in scale.shape)
    laid = from_kernel_rows(codes, weight.shape, site.inputs, site.output)
    found = back[cut] if scale.ndim else np.asarray(wider.max())
    return laid, found.astype(scale.dtype)


@register
@dataclass(frozen=True)
class Rtn(Pass):
    """Replace every Encode of a constant by its nearest codes.

    rewrite:  wq = Encode(w, s);  y = x @ Decode(wq, s)
              -->
              wq = const;         y = x @ Decode(wq, s)
    shapes:   w, wq [K, N] (or a Conv's layout); s as `QType.scale_shape`
    options:  none
    error:    at most half a step per weight; more where a kernel's rule on the codes forbids it
    raises:   PassError when codes that must keep a rule are moved before they are decoded
    source:   round to nearest even, as QuantizeLinear; the `pairs` rule: passes/rounding/limits.py
    """

    name: ClassVar[str] = "rtn"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for encode in encodes(graph):
            ctx.did(encode.inputs[0])
            round_nearest(encode, ctx)


def encodes(graph: Graph) -> list[Node]:
    """Every Encode of a constant."""
    found = [node for node in graph.graph.all_nodes() if ops.is_op(node, "Encode")]
    return [node for node in found if array(node.inputs[0]) is not None]


def round_nearest(encode: Node, ctx: Ctx) -> None:
    """Put the nearest codes in the place of an Encode of a constant, or those that its kernel's
    rule allows, whose scale is then another one."""
    qtype, source = ops.qtype_of(encode), encode.inputs[0]
    weight, scale = array(source), array(encode.inputs[1])
    zero = array(encode.inputs[2]) if len(encode.inputs) > 2 else None
    assert weight is not None
    assert scale is not None
    weight = weight.astype(np.float32, copy=False)
    site = _reader(encode)
    if not ruled(encode) or site is None:
        write_codes(encode, round_weight(weight, scale, zero, qtype), None, ctx)
        return
    if decodes_of(encode) is None:
        raise PassError(
            "its codes must keep a kernel's rule, but not only Decodes read them",
            at=source,
            hint="decode the weight before it is moved",
        )
    write_codes(encode, *round_pairs(weight, scale, site), ctx)


def ruled(encode: Node) -> bool:
    """Whether a kernel's rule holds for the codes (narrower ones than i8 cannot saturate)."""
    qtype = ops.qtype_of(encode)
    paired = qtype.element == "i8" and qtype.zero is None
    return paired and encode.metadata_props.get(LIMIT) == PAIRS


def write_codes(encode: Node, codes: np.ndarray, scale: np.ndarray | None, ctx: Ctx) -> None:
    """Codes in the place of the Encode of a constant; scale: a new one for its Decodes, or None."""
    source = encode.inputs[0]
    name = source.name if source is not None else "weight"
    if scale is not None:
        new_scale = ctx.edit.constant(scale, f"{name}.scale")
        for use in list(encode.outputs[0].uses()):
            ctx.edit.set_input(use.node, 1, new_scale)
    ctx.edit.replace(encode.outputs[0], ctx.edit.constant(codes, f"{name}.codes"))
    dead = [v for v in encode.inputs if v is not None]
    ctx.edit.remove(encode)
    for value in dead:
        ctx.edit.drop_constant(value)


def _reader(encode: Node) -> Linear | None:
    """The first linear layer that a Decode of the codes leads to."""
    for use in encode.outputs[0].uses():
        if ops.is_op(use.node, "Decode"):
            for reader in use.node.outputs[0].uses():
                site = linear(reader.node)
                if site is not None and site.weight is use.node.outputs[0]:
                    return site
    return None
