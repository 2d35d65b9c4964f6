"""Integer codes: pure functions of (numbers, scale, zero, QType); the meaning of i8, u4 and the
like."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ir.errors import PipelineError
from ir.qtype import QType, container

_NARROW = {
    "i4": ml_dtypes.int4,
    "u4": ml_dtypes.uint4,
    "i2": ml_dtypes.int2,
    "u2": ml_dtypes.uint2,
}
_WIDE = {f"{sign}{bits}": np.dtype(f"{sign}{bits // 8}") for sign in "iu" for bits in (8, 16, 32)}
_SCALES = {"f32": np.dtype("f4"), "f16": np.dtype("f2"), "bf16": np.dtype(ml_dtypes.bfloat16)}

SCALE_FLOOR = 1e-8
"""Smallest scale: a tensor of zeros still gets a scale that can be divided by (card observers)."""


def dtype(element: str) -> np.dtype:
    """The numpy type that holds codes of an integer element: i6 lies in int8."""
    stored = container(element)
    return _WIDE[stored] if stored in _WIDE else np.dtype(_NARROW[stored])


def expand(part: np.ndarray, shape: tuple[int, ...], qtype: QType) -> np.ndarray:
    """Scales or zeros of `qtype.scale_shape(shape)` repeated (or broadcastable) to `shape`."""
    for axis, (size, block) in enumerate(zip(shape, qtype.block, strict=False)):
        if block > 1:
            part = np.repeat(part, block, axis=axis)
            part = part[(slice(None),) * axis + (slice(0, size),)]
    return part


def scale_dtype(qtype: QType) -> np.dtype:
    """The numpy type of the scales."""
    try:
        return _SCALES[qtype.scales[0]]
    except KeyError:
        raise PipelineError(
            f"scales of type '{qtype.scales[0]}' are not numbers of numpy",
            hint=f"use {', '.join(_SCALES)}",
        ) from None


def scale_and_zero(low, high, qtype: QType) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero point (or None), in the QType's types, that cover [low, high], zero included.

    A scale that its type rounds down leaves the ends half a step or less outside.

    Symmetric: s = max(|low|, |high|) / qmax (unsigned codes without a zero hold no negatives).
    Affine: s = (high - low) / (qmax - qmin),
    z = round(qmin - low / s). Card observers, eq. 1.
    """
    low = np.minimum(np.asarray(low, np.float64), 0)
    high = np.maximum(np.asarray(high, np.float64), 0)
    lowest, highest = qtype.limits
    kind = scale_dtype(qtype)
    floor = max(SCALE_FLOOR, float(ml_dtypes.finfo(kind).tiny))
    if qtype.zero is None:
        return np.maximum(np.maximum(-low, high) / highest, floor).astype(kind), None
    scale = np.maximum((high - low) / (highest - lowest), floor).astype(kind)
    zero = np.clip(np.rint(lowest - low / scale.astype(np.float64)), lowest, highest)
    return scale, zero.astype(dtype(qtype.zero))


def encode(x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, qtype: QType) -> np.ndarray:
    """Nearest codes, ties to even, saturating: what QuantizeLinear does."""
    codes = np.rint(x / expand(scale.astype(np.float32, copy=False), x.shape, qtype))
    if zero is not None:
        codes = codes + expand(zero.astype(np.float32), x.shape, qtype)
    return np.clip(codes, *qtype.limits).astype(dtype(qtype.element))


def decode(
    codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, qtype: QType
) -> np.ndarray:
    """(codes - zero) * scale in float32: what DequantizeLinear does."""
    steps = codes.astype(np.float32)
    if zero is not None:
        steps -= expand(zero.astype(np.float32), codes.shape, qtype)
    steps *= expand(scale.astype(np.float32), codes.shape, qtype)
    return steps
