"""Changes of element type, with ONNX's rules for every type."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from onnx_ir import DataType
from torch import Tensor

from backends.torch.dtypes import FLOAT8, NARROW, ONNX_TYPES, to_numpy, to_torch
from backends.torch.table import Site, op

_INT_BITS = {DataType.INT4: 4, DataType.UINT4: 4, DataType.INT2: 2, DataType.UINT2: 2}
_SMALL_FLOATS = {DataType.FLOAT4E2M1, DataType.FLOAT6E2M3, DataType.FLOAT6E3M2}
_FLOAT8_CODES = {ONNX_TYPES[dtype] for dtype in FLOAT8}


@op("Cast")
def cast(x: Any, *, to: int, saturate: int = 1, round_mode: str = "up", site: Site) -> Tensor:
    return convert(x, DataType(to), bool(saturate), round_mode, site)


@op("CastLike")
def cast_like(
    x: Any, like: Any, *, saturate: int = 1, round_mode: str = "up", site: Site
) -> Tensor:
    code = site.narrow(1) or ONNX_TYPES[like.dtype]
    return convert(x, code, bool(saturate), round_mode, site)


def convert(x: Tensor, code: DataType, saturate: bool, round_mode: str, site: Site) -> Tensor:
    """x as ONNX type `code`, in the torch dtype that holds it."""
    if code in _INT_BITS:
        return wrap(x, code)
    if code in _SMALL_FLOATS:
        return to_small_float(x, code)
    if code in _FLOAT8_CODES:
        return to_float8(x, code, saturate, round_mode)
    dtype = site.dtype(code)
    if x.dtype in FLOAT8 and not dtype.is_floating_point:
        x = x.to(torch.float32)
    if x.is_floating_point() and dtype in (torch.uint16, torch.uint32, torch.uint64):
        return torch.from_numpy(x.detach().cpu().double().numpy().astype(_numpy(dtype)))
    return x.to(dtype)


def _numpy(dtype: torch.dtype) -> np.dtype:
    return ONNX_TYPES[dtype].numpy()


def wrap(x: Tensor, code: DataType) -> Tensor:
    """To a 2 or 4 bit integer: fractions dropped, then the low bits kept."""
    bits = _INT_BITS[code]
    low = x.to(torch.float32) if x.dtype in FLOAT8 else x
    low = low.to(torch.int64).bitwise_and((1 << bits) - 1)
    if code.is_signed():
        low = torch.where(low >= 1 << (bits - 1), low - (1 << bits), low)
        return low.to(torch.int8)
    return low.to(torch.uint8)


def to_small_float(x: Tensor, code: DataType) -> Tensor:
    """To a 4 or 6 bit float: nearest even, saturating."""
    array = x.detach().to(torch.float32).cpu().numpy()
    return to_torch(array.astype(code.numpy()), str(x.device))


def to_float8(x: Tensor, code: DataType, saturate: bool, round_mode: str = "up") -> Tensor:
    """To an 8 bit float. Saturating, overflow gives the largest finite value; else inf or NaN."""
    target = code.numpy()
    wide = x.detach().to(torch.float32).cpu().numpy()
    if code is DataType.FLOAT8E8M0:
        return to_torch(e8m0(wide, saturate, round_mode), str(x.device))
    top = float(ml_dtypes.finfo(target).max)
    if saturate:
        wide = np.where(np.isnan(wide), wide, np.clip(wide, -top, top))
        return to_torch(wide.astype(target), str(x.device))
    with np.errstate(over="ignore", invalid="ignore"):
        return to_torch(wide.astype(target), str(x.device))


def e8m0(x: np.ndarray, saturate: bool, round_mode: str) -> np.ndarray:
    """f32 -> power-of-two codes (exponent + 127; 255 is NaN). Sign is dropped.

    round_mode: `up` and `down` in magnitude, `nearest` with ties up.
    """
    bits = np.ascontiguousarray(np.abs(x), dtype=np.float32).view(np.uint32)
    exponent, rest = (bits >> 23).astype(np.int64), bits & 0x7FFFFF
    if round_mode == "up":
        grow = rest > 0
    elif round_mode == "nearest":
        grow = rest >= 0x400000
    else:
        grow = np.zeros_like(rest, dtype=bool)
    codes = exponent + np.where(grow & ((exponent > 0) | (rest > 0x400000)), 1, 0)
    codes = np.minimum(codes, 254) if saturate else codes
    codes = np.where(np.isnan(x), 255, np.where(np.isinf(x), 254 if saturate else 255, codes))
    return codes.clip(0, 255).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)


@op("BitCast")
def bit_cast(x: Tensor, *, to: int, site: Site) -> Tensor:
    """The same bits read as a type of the same width."""
    source, target = site.narrow(0), DataType(to)
    if source is None and target not in NARROW:
        if x.dtype is torch.bool:
            x = x.view(torch.uint8)
        return x.view(site.dtype(to))
    array = to_numpy(x, source).view(np.uint8)
    return to_torch(array.view(target.numpy()))
