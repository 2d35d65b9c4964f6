"""Random ops: seeded by their attribute, else by torch's global generator; never folded."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backends.torch.table import Site, op


def _generator(seed: float | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(int(seed))


def _uniform(shape: object, low: float, high: float, seed: float | None) -> Tensor:
    raw = torch.rand(shape, generator=_generator(seed))  # type: ignore[call-overload]
    return raw * (high - low) + low


def _normal(shape: object, mean: float, scale: float, seed: float | None) -> Tensor:
    return torch.randn(shape, generator=_generator(seed)) * scale + mean  # type: ignore[call-overload]


@op("RandomUniform", random=True)
def random_uniform(
    *,
    shape: tuple[int, ...],
    dtype: int = 1,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
    site: Site,
) -> Tensor:
    return _uniform(shape, low, high, seed).to(site.device, site.dtype(dtype))


@op("RandomUniformLike", random=True)
def random_uniform_like(
    x: Tensor,
    *,
    dtype: int | None = None,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
    site: Site,
) -> Tensor:
    kind = x.dtype if dtype is None else site.dtype(dtype)
    return _uniform(x.shape, low, high, seed).to(x.device, kind)


@op("RandomNormal", random=True)
def random_normal(
    *,
    shape: tuple[int, ...],
    dtype: int = 1,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    site: Site,
) -> Tensor:
    return _normal(shape, mean, scale, seed).to(site.device, site.dtype(dtype))


@op("RandomNormalLike", random=True)
def random_normal_like(
    x: Tensor,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    site: Site,
) -> Tensor:
    kind = x.dtype if dtype is None else site.dtype(dtype)
    return _normal(x.shape, mean, scale, seed).to(x.device, kind)


@op("Bernoulli", random=True)
def bernoulli(
    x: Tensor, *, dtype: int | None = None, seed: float | None = None, site: Site
) -> Tensor:
    kind = x.dtype if dtype is None else site.dtype(dtype)
    return (_uniform(x.shape, 0, 1, seed).to(x.device) < x).to(kind)


@op("Multinomial", random=True)
def multinomial(
    x: Tensor, *, dtype: int = 6, sample_size: int = 1, seed: float | None = None, site: Site
) -> Tensor:
    weights = torch.softmax(x.to(torch.float64), -1)
    drawn = torch.multinomial(weights, sample_size, True, generator=_generator(seed))
    return drawn.to(site.dtype(dtype))


@op("Dropout", random=True)
def dropout(
    x: Tensor,
    ratio_in: Tensor | None = None,
    training: Tensor | None = None,
    *,
    ratio: float = 0.5,
    seed: int | None = None,
    site: Site,
) -> Tensor | tuple[Tensor, Tensor]:
    """Nothing is dropped unless the training input says so."""
    rate = ratio if ratio_in is None else float(ratio_in)
    if training is None or not bool(training) or rate == 0:
        return x if site.outputs == 1 else (x, torch.ones_like(x, dtype=torch.bool))
    kept = _uniform(x.shape, 0, 1, seed).to(x.device) >= rate
    scale = 0.0 if math.isclose(rate, 1.0) else 1 / (1 - rate)
    return torch.where(kept, x * scale, torch.zeros_like(x)), kept
