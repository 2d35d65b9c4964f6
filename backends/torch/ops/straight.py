"""Inside Encode and Decode of the domain `quant`: Round and Cast that let a gradient through.

Without a gradient they are the ordinary ops. With one, Round passes it unchanged and a Cast to an
integer type keeps whole-number floats, so that codes stay differentiable up to their Decode.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx_ir import DataType
from torch import Tensor

from backends.torch.ops.cast import cast
from backends.torch.table import OPS, Entry, Site


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_straight(x: Tensor) -> Tensor:
    return _Round.apply(x) if x.requires_grad else torch.round(x)  # type: ignore[return-value]


def cast_straight(
    x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up", site: Site
) -> Tensor:
    if x.requires_grad and DataType(to).is_integer():
        return x
    return cast(x, to=to, saturate=saturate, round_mode=round_mode, site=site)


STRAIGHT: dict[str, Entry] = {
    "Round": Entry(round_straight),
    "Cast": Entry(cast_straight, attrs=OPS["Cast"].attrs, wants_site=True),
}
