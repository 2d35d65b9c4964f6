"""What codes mean, for every element: pure functions of (numbers, scale, zero, QType).

`encode`, `decode` and `scale_and_zero` are all that a rounding method needs to know of a format;
`levels` and `round_to_grid` are for those that choose among a number's neighbours themselves.
Integers: `integer.py`. Tables (minifloats, logarithms, nf4): `ir/elements.py`.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from ir.elements import Element, element
from ir.errors import PipelineError
from ir.qtype import QType

from . import integer
from .integer import expand

SCALES = {
    "f32": np.dtype("f4"),
    "f16": np.dtype("f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
"""Types of scales; e8m0 holds powers of two only."""


def table(qtype: QType) -> Element | None:
    """The table of a QType's element; None for integers.

    Raises PipelineError for elements and side data that have no meaning here.
    """
    if qtype.integer:
        return None
    found = element(qtype.element)
    if found is None:
        raise PipelineError(
            f"element '{qtype.element}' is not known",
            hint="use i4, u8, e2m1, nf4, log2u4, logsqrt2u4 and the like",
        )
    if qtype.zero is not None or len(qtype.scales) != 1 or qtype.scales[0] not in SCALES:
        raise PipelineError(
            f"{qtype} has no meaning: a table has one scale ({', '.join(SCALES)}) and no zero point"
        )
    return found


def dtype(qtype: QType) -> np.dtype:
    """The numpy type that holds the codes."""
    return integer.dtype(qtype.container)


def levels(qtype: QType) -> np.ndarray:
    """Every number that codes stand for at scale 1 and zero point 0, float32, rising."""
    found = table(qtype)
    if found is not None:
        return found.levels
    low, high = qtype.limits
    if qtype.bits > 16:
        raise PipelineError(f"{qtype} has too many levels to be listed")
    return np.arange(low, high + 1, dtype=np.float32)


def round_to_grid(ratio: np.ndarray, qtype: QType) -> np.ndarray:
    """The level nearest to every number that is divided by its scale already, float32."""
    found = table(qtype)
    if found is not None:
        return found.values[found.nearest(ratio)]
    return np.clip(np.rint(ratio), *qtype.limits).astype(np.float32)


def encode(x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, qtype: QType) -> np.ndarray:
    """Nearest codes, ties to the even code, saturating, in `dtype(qtype)`."""
    found = table(qtype)
    if found is None:
        return integer.encode(x, scale, zero, qtype)
    ratio = np.asarray(x, np.float32) / expand(scale.astype(np.float32), x.shape, qtype)
    return found.nearest(ratio).astype(dtype(qtype))


def decode(
    codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, qtype: QType
) -> np.ndarray:
    """Level times scale (integers: less the zero point before), float32."""
    found = table(qtype)
    if found is None:
        return integer.decode(codes, scale, zero, qtype)
    return found.values[codes.astype(np.uint8)] * expand(
        scale.astype(np.float32), codes.shape, qtype
    )


def scale_and_zero(low, high, qtype: QType) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero point (or None), in the QType's types, for numbers in [low, high].

    Tables: max(|low|, |high|) / top, rounded to the scale's type; of e8m0 2^(floor(log2 max) -
    floor(log2 top)), which may clip up to a quarter of the largest number of e2m1 (OCP MX 1.0,
    6.3). The smallest scale is one that can be divided by.
    """
    found = table(qtype)
    if found is None:
        return integer.scale_and_zero(low, high, qtype)
    reach = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
    kind = SCALES[qtype.scales[0]]
    if qtype.scales[0] == "e8m0":
        power = np.frexp(np.maximum(reach, np.finfo(np.float32).tiny))[1] - np.frexp(found.top)[1]
        code = np.clip(power, -126, 127) + 127
        return np.asarray(code, np.uint8).view(kind), None
    limits = ml_dtypes.finfo(kind)
    if qtype.scales[0] == "e4m3":
        least = float(limits.smallest_subnormal)
    else:
        least = max(integer.SCALE_FLOOR, float(limits.tiny))
    return np.asarray(np.clip(reach / found.top, least, float(limits.max))).astype(kind), None
