"""Fake quantization with gradients: the numbers of `ir.formats.integer`, rounded straight through.

A rounding passes the gradient of what it rounds (the straight-through estimator); a clip passes it
inside its limits only. x, scale, zero and the bounds of a range may all be learned.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import torch

from ir.formats import integer
from ir.qtype import QType

_KINDS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class _Round(torch.autograd.Function):
    """Nearest, ties to even; x + (round(x) - x) would not give whole numbers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def rounded(x: torch.Tensor) -> torch.Tensor:
    """round(x), whose gradient is taken as 1."""
    return _Round.apply(x)  # type: ignore[return-value]


def expand(part: torch.Tensor, shape: torch.Size, qtype: QType) -> torch.Tensor:
    """Scales or zeros of `qtype.scale_shape(shape)` repeated (or broadcastable) to `shape`."""
    for axis, (size, block) in enumerate(zip(shape, qtype.block, strict=False)):
        if block > 1:
            part = part.repeat_interleave(block, axis).narrow(axis, 0, size)
    return part


def extremes(x: torch.Tensor, qtype: QType) -> tuple[torch.Tensor, torch.Tensor]:
    """(low, high) of every group, of shape `qtype.scale_shape`, with gradients to them."""
    if qtype.per_tensor:
        return x.amin(), x.amax()
    return _grouped(x, qtype, torch.amin, torch.inf), _grouped(x, qtype, torch.amax, -torch.inf)


def _grouped(x: torch.Tensor, qtype: QType, reduce: Any, fill: float) -> torch.Tensor:
    shape: list[int] = []
    pads: list[int] = []
    for size, block in zip(x.shape, qtype.block, strict=True):
        block = block or size
        count = -(-size // block)
        pads = [0, count * block - size, *pads]  # torch pads from the last axis
        shape += [count, block]
    if any(pads):
        x = torch.nn.functional.pad(x, pads, value=fill)
    return reduce(x.reshape(shape), tuple(range(1, len(shape), 2)))


def scale_and_zero(
    low: torch.Tensor, high: torch.Tensor, qtype: QType
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scale and zero point, as float32 tensors, that cover [low, high], zero included."""
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    lowest, highest = qtype.limits
    kind = _KINDS[qtype.scales[0]]
    tiny = float(ml_dtypes.finfo(integer.scale_dtype(qtype)).tiny)
    floor = max(integer.SCALE_FLOOR, tiny)
    if qtype.zero is None:
        scale = (torch.maximum(-low, high) / highest).clamp(min=floor)
        return scale.to(kind).float(), None
    scale = ((high - low) / (highest - lowest)).clamp(min=floor).to(kind)
    zero = rounded(lowest - low / scale.double()).clamp(lowest, highest)
    return scale.float(), zero.float()


def fake_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
    qtype: QType,
    *,
    narrow: bool = False,
) -> torch.Tensor:
    """decode(encode(x)) with gradients to x, scale and zero.

    narrow: the most negative code of a symmetric signed type stays unused, as weights have it.
    """
    lowest, highest = qtype.limits
    if narrow and zero is None and qtype.signed:
        lowest = -highest
    steps = expand(scale.float(), x.shape, qtype)
    codes = rounded(x / steps)
    if zero is None:
        return codes.clamp(lowest, highest) * steps
    offset = expand(zero.float(), x.shape, qtype)
    return ((codes + offset).clamp(lowest, highest) - offset) * steps
