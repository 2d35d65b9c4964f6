"""Hessians of linear layers from their inputs; of convolutions, from the windows they see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from calib.stats.gram import Gram
from ir import ops
from ir.graph import Node, array, attribute, rank
from passes.padding import without_padding
from passes.sites import Linear

_WINDOWS = 1 << 24
"""Numbers of unfolded windows that are laid out at a time."""


def refusal(site: Linear, encode: Node) -> str:
    """Why a layer's Hessian or its weight's grid is not known, or ''."""
    axes, qtype = rank(site.weight) or 0, ops.qtype_of(encode)
    if not qtype.integer:
        return f"columns are solved on whole steps, and {qtype.element} has none"
    if array(encode.inputs[1]) is None:
        return "its scale is computed at run time"
    if site.node.op_type != "Conv":
        return "" if axes == 2 else "its weight is a stack of matrices"
    if attribute(site.node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", b"NOTSET"):
        return "its padding is found at run time: put canonicalize before"
    return ""


def window(site: Linear) -> tuple:
    """What a layer sees of its input; layers that see the same share their Hessians."""
    node = site.node
    if node.op_type != "Conv":
        return ()
    kernel = tuple(int(d) for d in site.weight.shape[2:])  # type: ignore[union-attr]
    count = len(kernel)
    ones, zeros = [1] * count, [0] * 2 * count
    return (
        kernel, tuple(attribute(node, "strides", ones)), tuple(attribute(node, "dilations", ones)),
        tuple(attribute(node, "pads", zeros)), int(attribute(node, "group", 1)),
    )  # fmt: skip


def hessians(
    site: Linear, inputs: Sequence[torch.Tensor], rows: Sequence[np.ndarray | None]
) -> list[np.ndarray]:
    """X^T X of the inputs, float64 [K, K]: one matrix, or one for every group of a Conv.

    K is in the order of `limits.kernel_rows`: [kernel height, kernel width, channel] for Conv.
    rows: which leading rows of a batch hold data rather than padding.
    """
    if site.node.op_type != "Conv":
        gram = Gram()
        for x, valid in zip(inputs, rows, strict=True):
            kept = x if valid is None else without_padding(x, torch.from_numpy(valid))  # type: ignore[arg-type]
            gram.add(kept.reshape(-1, kept.shape[-1]))
        return [gram.result().gram]
    kernel, strides, dilations, pads, groups = window(site)
    grams = [Gram() for _ in range(groups)]
    for x in inputs:
        share = x.shape[1] // groups
        per = int(np.prod(x.shape[1:])) * int(np.prod(kernel))
        for part in x.split(max(1, _WINDOWS // max(1, per))):
            seen = unfold(part, kernel, strides, dilations, pads)
            for number, gram in enumerate(grams):
                mine = seen[..., number * share : (number + 1) * share]
                gram.add(mine.reshape(-1, int(np.prod(kernel)) * share))
    return [gram.result().gram for gram in grams]


def unfold(
    x: torch.Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    pads: Sequence[int],
) -> torch.Tensor:  # fmt: skip
    """Windows of x [B, C, *space]: [B, *out, *kernel, C], a view of the padded input."""
    count = len(kernel)
    ends = [(pads[i], pads[i + count]) for i in range(count)]
    x = torch.nn.functional.pad(x, [n for pair in reversed(ends) for n in pair])
    for i in range(count):
        reach = (kernel[i] - 1) * dilations[i] + 1
        x = x.unfold(2 + i, reach, strides[i])[..., :: dilations[i]]
    order = [0, *range(2, 2 + 2 * count), 1]
    return x.permute(order)
