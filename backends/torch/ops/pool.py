"""Pooling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.ops.conv import Ints, resolve_pads, split_pads
from backends.torch.table import Site, op

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _ceil_ends(
    size: tuple[int, ...], reach: Ints, strides: Ints, pads: tuple[int, ...]
) -> tuple[int, ...]:
    """End pads grown so that ceil mode's last window fits; a window never starts in the pad."""
    rank, ends = len(size), []
    for n, r, s, b, e in zip(size, reach or (), strides or (), pads, pads[rank:], strict=False):
        count = math.ceil((n + b + e - r) / s) + 1
        if (count - 1) * s >= n + b:
            count -= 1
        ends.append(max((count - 1) * s + r - n - b, e))
    return (*pads[:rank], *ends)


def _windows(x: Tensor, window: Ints, strides: Ints, dilations: Ints) -> Tensor:
    """x[N, C, *size] -> [N, C, *out, *window] without copying."""
    rank = len(window or ())
    for axis, (k, s, d) in enumerate(
        zip(window or (), strides or (), dilations or (), strict=True), start=2
    ):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d]
    assert x.dim() == 2 + 2 * rank
    return x


def _laid_out(
    x: Tensor, window: Ints, strides: Ints, dilations: Ints, pads: Ints, auto_pad: str, ceil: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(strides, dilations, pads as declared, pads with what ceil mode adds)."""
    rank = len(window or ())
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    reach = tuple((k - 1) * d + 1 for k, d in zip(window or (), dilations, strict=True))
    declared = resolve_pads(auto_pad, pads, x, reach, strides)
    grown = _ceil_ends(tuple(x.shape[2:]), reach, strides, declared) if ceil else declared
    return strides, dilations, declared, grown


def _pad(x: Tensor, pads: tuple[int, ...], value: float) -> Tensor:
    rank = len(pads) // 2
    flat = [n for i in reversed(range(rank)) for n in (pads[i], pads[rank + i])]
    return F.pad(x, flat, value=value) if any(pads) else x


@op("MaxPool")
def max_pool(
    x: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    pads: Ints = None,
    storage_order: int = 0,
    strides: Ints = None,
    site: Site,
) -> Tensor | tuple[Tensor, Tensor]:
    layout = (x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    strides, dilations, _, grown = _laid_out(*layout)
    rank = len(kernel_shape)
    plain = x.is_floating_point() and site.outputs == 1 and rank <= 3
    inner, extra = split_pads(grown)
    half = all(2 * p <= k for p, k in zip(inner, kernel_shape, strict=True))
    if plain:
        if extra or not half:
            x, inner = _pad(x, grown, float("-inf")), [0] * rank
        return _MAX[rank](x, kernel_shape, strides, inner, dilations)
    low = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    flat = _windows(_pad(x, grown, low), kernel_shape, strides, dilations).flatten(2 + rank)
    best = flat.max(-1)
    if site.outputs == 1:
        return best.values
    places = torch.arange(x.numel(), device=x.device).reshape(x.shape)
    if storage_order:
        plane = math.prod(x.shape[2:])
        each = torch.arange(plane).reshape(tuple(reversed(x.shape[2:])))
        each = each.permute(*reversed(range(rank)))
        start = torch.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * rank) * plane
        places = start + each
    wide = _windows(_pad(places, grown, -1), kernel_shape, strides, dilations).flatten(2 + rank)
    return best.values, wide.gather(-1, best.indices.unsqueeze(-1)).squeeze(-1)


@op("AveragePool")
def average_pool(
    x: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints = None,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    layout = (x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    strides, dilations, declared, grown = _laid_out(*layout)
    rank = len(kernel_shape)
    inner, extra = split_pads(grown)
    half = all(2 * p <= k for p, k in zip(inner, kernel_shape, strict=True))
    plain = grown == declared and not extra and set(dilations) == {1}
    if plain and half and rank <= 3:
        return _AVERAGE[rank](x, kernel_shape, strides, inner, False, bool(count_include_pad))
    dims = list(range(2 + rank, 2 + 2 * rank))
    total = _windows(_pad(x, grown, 0.0), kernel_shape, strides, dilations).sum(dims)
    ones = torch.ones_like(x[:1, :1])
    if count_include_pad:  # what ceil mode adds is outside even then
        ones = _pad(ones, declared, 1.0)
        rest = tuple(g - d for g, d in zip(grown, declared, strict=True))
    else:
        rest = grown
    return total / _windows(_pad(ones, rest, 0.0), kernel_shape, strides, dilations).sum(dims)


@op("LpPool")
def lp_pool(
    x: Tensor,
    *,
    kernel_shape: tuple[int, ...],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = None,
    p: int = 2,
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    layout = (x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    strides, dilations, _, grown = _laid_out(*layout)
    rank = len(kernel_shape)
    windows = _windows(_pad(x, grown, 0.0), kernel_shape, strides, dilations)
    return torch.linalg.vector_norm(windows, p, list(range(2 + rank, 2 + 2 * rank)))


@op("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.dim())), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(list(range(2, x.dim())), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(x: Tensor, *, p: int = 2) -> Tensor:
    return torch.linalg.vector_norm(x, p, list(range(2, x.dim())), keepdim=True)


@op("MaxUnpool")
def max_unpool(
    x: Tensor,
    places: Tensor,
    shape: Tensor | None = None,
    *,
    kernel_shape: tuple[int, ...],
    pads: Ints = None,
    strides: Ints = None,
) -> Tensor:
    """The places count within the tensor that was pooled, whose shape follows from the window."""
    rank = len(kernel_shape)
    strides, pads = strides or (1,) * rank, pads or (0,) * (2 * rank)
    sizes = [
        (n - 1) * s + k - pads[i] - pads[rank + i]
        for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel_shape, strict=True))
    ]
    flat = torch.zeros(math.prod(x.shape[:2]) * math.prod(sizes), dtype=x.dtype, device=x.device)
    y = flat.scatter(0, places.flatten(), x.flatten()).reshape(*x.shape[:2], *sizes)
    if shape is None:
        return y
    ends = [n - size for n, size in zip(shape.tolist()[2:], sizes, strict=True)]
    return F.pad(y, [n for end in reversed(ends) for n in (0, end)])
