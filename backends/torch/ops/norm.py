"""Normalizations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.table import Site, op


@op("BatchNormalization")
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    if not training_mode:
        if scale.dtype is not x.dtype or mean.dtype is not x.dtype:
            scale, bias, mean, var = (t.to(x.dtype) for t in (scale, bias, mean, var))
        return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)
    dims = [d for d in range(x.dim()) if d != 1]
    now_mean, now_var = x.mean(dims), x.var(dims, unbiased=False)
    y = F.batch_norm(x, now_mean, now_var, scale, bias, False, 0.0, epsilon)
    keep = 1 - momentum
    return y, mean * momentum + now_mean * keep, var * momentum + now_var * keep


@op("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@op("LayerNormalization")
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    site: Site,
) -> Tensor | tuple[Tensor, ...]:
    shape = x.shape[axis:]
    if site.outputs == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, epsilon)
    dims = list(range(axis % x.dim(), x.dim()))
    wide = x.to(site.dtype(stash_type))
    mean = wide.mean(dims, True)
    inverse = torch.rsqrt((wide - mean).square().mean(dims, True) + epsilon)
    y = ((wide - mean) * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@op("RMSNormalization")
def rms_norm(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    site: Site,
) -> Tensor:
    dims = list(range(axis % x.dim(), x.dim()))
    wide = x.to(site.dtype(stash_type))
    inverse = torch.rsqrt(wide.square().mean(dims, True) + epsilon)
    return (wide * inverse).to(x.dtype) * scale


@op("GroupNormalization")
def group_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    site: Site,
) -> Tensor:
    """Before opset 21 scale and bias are per group, since then per channel."""
    if scale.shape[0] == num_groups and site.opset < 21:
        each = x.shape[1] // num_groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return F.group_norm(x, num_groups, scale, bias, epsilon)


@op("LRN")
def lrn(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    low, high = (size - 1) // 2, math.ceil((size - 1) / 2)
    padded = F.pad(x.square().movedim(1, -1), (low, high))
    window = padded.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (bias + alpha / size * window) ** beta


@op("LpNormalization")
def lp_norm(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """A vector of zeros stays zeros."""
    norm = torch.linalg.vector_norm(x, p, axis, True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@op("MeanVarianceNormalization")
def mean_variance_norm(x: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    centred = x - x.mean(axes, True)
    return centred / (centred.square().mean(axes, True).sqrt() + 1e-9)
