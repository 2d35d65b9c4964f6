"""Quantized ops: rounding half to even, saturation and integer sums exactly as specified.

QuantizeLinear and DequantizeLinear have gradients: straight through where nothing was clipped,
and to the scale as in LSQ (Esser et al., arXiv:1902.08153, eq. 3, without its step-size factor).
"""

from __future__ import annotations

from typing import Any

import torch
from onnx_ir import DataType
from torch import Tensor

from backends.torch.dtypes import ONNX_TYPES, TORCH_DTYPES
from backends.torch.ops.cast import to_float8, to_small_float
from backends.torch.ops.conv import Ints, exact_conv
from backends.torch.ops.linear import centred, exact_matmul
from backends.torch.table import Site, op

INT_RANGES = {
    DataType.INT2: (-2, 1),
    DataType.UINT2: (0, 3),
    DataType.INT4: (-8, 7),
    DataType.UINT4: (0, 15),
    DataType.INT8: (-128, 127),
    DataType.UINT8: (0, 255),
    DataType.INT16: (-32768, 32767),
    DataType.UINT16: (0, 65535),
}


def spread(scale: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scale or zero point laid along x: per tensor, per axis, or per block of `axis`."""
    if scale.numel() == 1 and not block:
        return scale.reshape(())
    axis = axis % x.dim()
    if scale.dim() == 1 and not block:
        shape = [1] * x.dim()
        shape[axis] = -1
        return scale.reshape(shape)
    if block:
        scale = _repeat(scale, block, axis)
    else:  # as many blocks as the scale has entries
        scale = _repeat(scale, -(-x.shape[axis] // scale.shape[axis]), axis)
    return scale.narrow(axis, 0, x.shape[axis])


def _repeat(x: Tensor, count: int, axis: int) -> Tensor:
    """Each entry `count` times along `axis`; an expanded view, so autograd stays cheap."""
    grown = x.unsqueeze(axis + 1)
    shape = list(grown.shape)
    shape[axis + 1] = count
    return grown.expand(shape).flatten(axis, axis + 1)


class _Straight(torch.autograd.Function):
    """Codes of x at a scale as floats, with the straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
        raw = torch.round(x / scale) + zero
        ctx.save_for_backward(x, scale, (raw >= low) & (raw <= high))
        return raw.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, inside = ctx.saved_tensors
        passed = grads[0] * inside
        to_x = passed / scale
        # codes do not move with the scale but through x / scale; the decode adds its own share
        to_scale = (-passed * x / (scale * scale)).sum_to_size(scale.shape)
        return to_x, to_scale, None, None, None


def encode(x: Tensor, scale: Tensor, zero: Tensor | None, code: DataType) -> Tensor:
    """round_half_even(x / scale) + zero, saturated, in the type that holds `code`.

    With autograd on, codes stay floats so that a gradient can pass them.
    """
    low, high = INT_RANGES[code]
    shift = torch.zeros((), dtype=x.dtype) if zero is None else zero.to(x.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad):
        return _Straight.apply(x, scale, shift, low, high)  # type: ignore[return-value]
    codes = torch.round(x / scale)
    if zero is not None:
        codes = codes + shift
    return codes.clamp(low, high).to(TORCH_DTYPES[code])


@op("QuantizeLinear")
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    site: Site,
) -> Tensor:
    if output_dtype:
        code = DataType(output_dtype)
    elif zero is not None:
        code = site.narrow(2) or ONNX_TYPES[zero.dtype]
    else:
        code = DataType.UINT8
    wide = site.dtype(precision) if precision else _precision(x, scale)
    x = x.to(wide)
    scale = spread(scale.to(wide), x, axis, block_size)
    if code in INT_RANGES:
        zero = None if zero is None else spread(zero, x, axis, block_size)
        return encode(x, scale, zero, code)
    ratio = x / scale
    if code in (DataType.FLOAT4E2M1, DataType.FLOAT6E2M3, DataType.FLOAT6E3M2):
        return to_small_float(ratio, code)
    return to_float8(ratio, code, bool(saturate))


def _precision(x: Tensor, scale: Tensor) -> torch.dtype:
    """The division is done in the scale's type, or in x's where the scale only holds exponents."""
    if scale.dtype.itemsize == 1:
        return x.dtype if x.is_floating_point() else torch.float32
    return scale.dtype if x.dtype is not torch.float64 else torch.float64


@op("DequantizeLinear")
def dequantize_linear(
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    site: Site,
) -> Tensor:
    dtype = site.dtype(output_dtype) if output_dtype else scale.dtype
    wide = scale.dtype if scale.dtype.itemsize > 1 else torch.float32
    scale = spread(scale.to(wide), codes, axis, block_size)
    value = codes.to(wide)
    if zero is not None:
        value = value - spread(zero, codes, axis, block_size).to(wide)
    y = value * scale
    return y if y.dtype is dtype else y.to(dtype)


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not x.numel():
        return x.to(torch.uint8), x.new_ones(()), x.new_zeros((), dtype=torch.uint8)
    low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
    scale = (high - low) / 255
    start = torch.where(scale == 0, torch.zeros_like(scale), -low / scale)
    zero = torch.clamp(torch.round(start), 0, 255).to(torch.uint8)
    codes = encode(x, torch.where(scale == 0, torch.ones_like(scale), scale), zero, DataType.UINT8)
    return codes, scale, zero


def _requantize(sums: Tensor, factor: Tensor, zero: Tensor, code: DataType) -> Tensor:
    return encode(sums.to(factor.dtype) * factor, torch.ones((), dtype=factor.dtype), zero, code)


@op("QLinearMatMul")
def qlinear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    site: Site,
) -> Tensor:
    sums = exact_matmul(centred(a, a_zero, -2), centred(b, b_zero, -1))
    rows = a_scale.unsqueeze(-1) if a_scale.dim() == 1 and a_scale.numel() > 1 else a_scale
    factor = rows * b_scale / y_scale
    return _requantize(sums, factor, y_zero, site.narrow(7) or ONNX_TYPES[y_zero.dtype])


@op("QLinearConv")
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
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
    sums = exact_conv(centred(x, x_zero, 1), centred(w, w_zero, 0), attrs)
    across = [1, -1] + [1] * (x.dim() - 2)
    if bias is not None:
        sums = sums + bias.reshape(across)
    factor = (x_scale * w_scale / y_scale).reshape(across)
    return _requantize(sums, factor, y_zero, ONNX_TYPES[y_zero.dtype])
