"""Convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.ops.linear import centred
from backends.torch.table import op

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
Ints = tuple[int, ...] | None


def same_pads(
    size: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], upper: bool
) -> tuple[int, ...]:
    """Pads (all begins, then all ends) so that the output is ceil(size / stride)."""
    totals = [
        max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(size, window, strides, strict=True)
    ]
    small = [t // 2 for t in totals]
    large = [t - s for t, s in zip(totals, small, strict=True)]
    return tuple(small + large) if upper else tuple(large + small)


def resolve_pads(
    auto_pad: str, pads: Ints, x: Tensor, window: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(tuple(x.shape[2:]), window, strides, auto_pad == "SAME_UPPER")
    return tuple(pads) if pads and auto_pad == "NOTSET" else (0,) * (2 * len(window))


def split_pads(pads: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """ONNX pads -> (symmetric part for the kernel, the rest in F.pad's order, or [])."""
    rank = len(pads) // 2
    begins, ends = pads[:rank], pads[rank:]
    if begins == ends:
        return list(begins), []
    extra = [n for b, e in zip(reversed(begins), reversed(ends), strict=True) for n in (b, e)]
    return [0] * rank, extra


@op("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    rank = w.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    if auto_pad != "NOTSET":
        reach = tuple((k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True))
        pads = resolve_pads(auto_pad, pads, x, reach, strides)
    inner, extra = split_pads(pads) if pads else ([0] * rank, [])
    return _CONV[rank](F.pad(x, extra) if extra else x, w, bias, strides, inner, dilations, group)


@op("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    output_padding: Ints = None,
    output_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    rank = w.dim() - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    grow = output_padding or (0,) * rank
    full = [
        (n - 1) * s + (k - 1) * d + 1 + g
        for n, s, k, d, g in zip(x.shape[2:], strides, w.shape[2:], dilations, grow, strict=True)
    ]
    if output_shape is None and auto_pad.startswith("SAME"):
        output_shape = tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
    if output_shape is not None:
        totals = [f - o for f, o in zip(full, output_shape[-rank:], strict=True)]
        half, rest = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = tuple(half + rest) if auto_pad == "SAME_UPPER" else tuple(rest + half)
    pads = pads if pads and auto_pad != "VALID" else (0,) * (2 * rank)
    same = pads[:rank] == pads[rank:] and all(g < s for g, s in zip(grow, strides, strict=True))
    if same and min(pads, default=0) >= 0:
        return _TRANSPOSED[rank](x, w, bias, strides, pads[:rank], grow, group, dilations)
    y = _TRANSPOSED[rank](x, w, bias, strides, 0, 0, group, dilations)
    return _cropped(y, pads, grow, bias)


def _cropped(
    y: Tensor, pads: tuple[int, ...], grow: tuple[int, ...], bias: Tensor | None
) -> Tensor:
    """Take `pads` away on both sides and add `grow` at the ends (where only the bias falls)."""
    rank = len(grow)
    ends = [g - p for g, p in zip(grow, pads[rank:], strict=True)]
    extra = [n for b, e in zip(reversed(pads[:rank]), reversed(ends), strict=True) for n in (-b, e)]
    if bias is None or max(extra) <= 0:
        return F.pad(y, extra)
    shift = bias.reshape(1, -1, *[1] * rank)
    return F.pad(y - shift, extra) + shift


def exact_conv(x: Tensor, w: Tensor, attrs: dict) -> Tensor:
    """int32 convolution of integer tensors; float64 is exact below 2^53."""
    return conv(x.to(torch.float64), w.to(torch.float64), **attrs).to(torch.int64).to(torch.int32)


@op("ConvInteger")
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = None,
    group: int = 1,
    kernel_shape: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    attrs = {"auto_pad": auto_pad, "dilations": dilations, "group": group}
    attrs |= {"pads": pads, "strides": strides}
    return exact_conv(centred(x, x_zero, 1), centred(w, w_zero, 0), attrs)
