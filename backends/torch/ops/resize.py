"""Resize as one interpolation matrix per axis: exact for every mode, differentiable."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.table import Site, op


@op("Resize", "Upsample")
def resize(
    x: Tensor,
    *rest: Tensor | None,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    scales: tuple[float, ...] | None = None,
    site: Site,
) -> Tensor:
    """Inputs after x: (roi, scales, sizes); Upsample and Resize-10 have only scales."""
    old = site.node.op_type == "Upsample" or site.opset < 11
    roi, factors, sizes = (None, *rest, None, None)[:3] if old else (*rest, None, None, None)[:3]
    if old:
        coordinate_transformation_mode, nearest_mode = "asymmetric", "floor"
    dims = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes]
    given = list(scales or ()) if factors is None else factors.tolist()
    out, ratio = target(x, dims, given, sizes, keep_aspect_ratio_policy)
    if _is_plain(x, dims, ratio, mode, coordinate_transformation_mode, antialias):
        return F.interpolate(x, size=out[-2:], mode="bilinear", align_corners=False)
    corners = roi.tolist() if roi is not None and roi.numel() else [0.0, 1.0] * len(dims)
    half = len(corners) // 2
    for i, dim in enumerate(dims):
        crop = coordinate_transformation_mode == "tf_crop_and_resize"
        if out[i] == x.shape[dim] and ratio[i] == 1.0 and not crop:
            continue
        places = source_places(
            out[i],
            x.shape[dim],
            ratio[i],
            coordinate_transformation_mode,
            (corners[i], corners[half + i]) if crop else (0.0, 1.0),
        )
        weights = interpolation(
            places,
            x.shape[dim],
            ratio[i],
            mode,
            nearest_mode,
            cubic_coeff_a,
            bool(exclude_outside),
            bool(antialias),
        )
        x = _apply(x, dim, weights, mode)
        if crop:
            x = _outside(x, dim, places, weights.shape[1], extrapolation_value)
    return x


def target(
    x: Tensor, dims: list[int], scales: list[float], sizes: Tensor | None, policy: str
) -> tuple[list[int], list[float]]:
    """(output size, scale) per resized axis."""
    if scales:
        return [math.floor(x.shape[d] * s) for d, s in zip(dims, scales, strict=True)], scales
    wanted = sizes.tolist() if sizes is not None else []
    ratio = [n / x.shape[d] for n, d in zip(wanted, dims, strict=True)]
    if policy != "stretch":
        one = min(ratio) if policy == "not_larger" else max(ratio)
        ratio = [one] * len(dims)
        wanted = [math.floor(one * x.shape[d] + 0.5) for d in dims]
    return wanted, ratio


def _is_plain(
    x: Tensor, dims: list[int], ratio: list[float], mode: str, where: str, antialias: int
) -> bool:
    """Whether torch's own bilinear kernel computes the same."""
    images = x.dim() == 4 and x.is_floating_point() and len(dims) == 4
    whole = images and ratio[:2] == [1.0, 1.0] and all(r == int(r) for r in ratio)
    return whole and mode == "linear" and where == "half_pixel" and not antialias


def source_places(
    out: int, size: int, scale: float, mode: str, roi: tuple[float, float]
) -> np.ndarray:
    """For each output index its coordinate in the input."""
    i = np.arange(out, dtype=np.float64)
    length = scale * size  # may be fractional
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        centre, adjust = size / 2, out / length
        return centre * (1 - adjust) + (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
    if mode == "align_corners":
        return i * (size - 1) / (length - 1) if length != 1 else np.zeros(out)
    if mode == "asymmetric":
        return i / scale
    if mode == "tf_crop_and_resize":
        first, last = roi
        if out > 1:
            return first * (size - 1) + i * (last - first) * (size - 1) / (length - 1)
        return np.full(out, 0.5 * (first + last) * (size - 1))
    raise ValueError(f"coordinate_transformation_mode {mode!r} is unknown")


def interpolation(
    places: np.ndarray,
    size: int,
    scale: float,
    mode: str,
    nearest_mode: str,
    cubic: float,
    exclude: bool,
    antialias: bool,
) -> np.ndarray:
    """Weights[out, size] that take the input axis to the output axis; rows sum to 1."""
    weights = np.zeros((len(places), size))
    rows = np.arange(len(places))
    if mode == "nearest":
        weights[rows, nearest(places, nearest_mode).clip(0, size - 1)] = 1
        return weights
    stretch = min(scale, 1.0) if antialias else 1.0
    reach = (1 if mode == "linear" else 2) / stretch
    kernel = _triangle if mode == "linear" else lambda t: _cubic(t, cubic)
    start = np.floor(places) - math.ceil(reach) + 1
    taps = start[:, None] + np.arange(2 * math.ceil(reach))
    value = kernel(np.abs((places[:, None] - taps) * stretch))
    if exclude:
        value = np.where((taps < 0) | (taps >= size), 0, value)
    value = value / value.sum(1, keepdims=True)
    for column in range(taps.shape[1]):
        np.add.at(weights, (rows, taps[:, column].clip(0, size - 1).astype(int)), value[:, column])
    return weights


def nearest(places: np.ndarray, mode: str) -> np.ndarray:
    rounded = {
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    return rounded[mode](places).astype(int)


def _triangle(t: np.ndarray) -> np.ndarray:
    return np.maximum(1 - t, 0)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel with parameter a."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _apply(x: Tensor, dim: int, weights: np.ndarray, mode: str) -> Tensor:
    if mode == "nearest":
        return x.index_select(dim, torch.from_numpy(weights.argmax(1)).to(x.device))
    matrix = torch.from_numpy(weights).to(x.device)
    wide = x if x.is_floating_point() else x.to(torch.float64)
    y = torch.matmul(wide.movedim(dim, -1), matrix.to(wide.dtype).T).movedim(-1, dim)
    return y if x.is_floating_point() else torch.round(y).to(x.dtype)


def _outside(x: Tensor, dim: int, places: np.ndarray, size: int, fill: float) -> Tensor:
    shape = [1] * x.dim()
    shape[dim] = -1
    out = torch.from_numpy((places < 0) | (places > size - 1)).reshape(shape).to(x.device)
    return torch.where(out, torch.full((), fill, dtype=x.dtype, device=x.device), x)
