"""One output element per element (with broadcasting)."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.ops.unsigned import UNSIGNED, or_numpy
from backends.torch.table import op, register

UNARY = {
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Abs": or_numpy(torch.abs, np.abs),
    "Sign": or_numpy(torch.sign, np.sign),
    "BitwiseNot": or_numpy(torch.bitwise_not, np.bitwise_not),
}
BINARY = {
    "Add": or_numpy(torch.add, np.add),
    "Sub": or_numpy(torch.sub, np.subtract),
    "Mul": or_numpy(torch.mul, np.multiply),
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Equal": or_numpy(torch.eq, np.equal),
    "Greater": or_numpy(torch.gt, np.greater),
    "GreaterOrEqual": or_numpy(torch.ge, np.greater_equal),
    "Less": or_numpy(torch.lt, np.less),
    "LessOrEqual": or_numpy(torch.le, np.less_equal),
    "BitwiseAnd": or_numpy(torch.bitwise_and, np.bitwise_and),
    "BitwiseOr": or_numpy(torch.bitwise_or, np.bitwise_or),
    "BitwiseXor": or_numpy(torch.bitwise_xor, np.bitwise_xor),
}
for _name, _fn in {**UNARY, **BINARY}.items():
    register(_name, _fn)

_maximum = or_numpy(torch.maximum, np.maximum)
_minimum = or_numpy(torch.minimum, np.minimum)


@op("Div")
def div(a: Tensor, b: Tensor) -> Tensor:
    """Integers divide towards zero."""
    if a.is_floating_point() or a.is_complex():
        return torch.div(a, b)
    if a.dtype in UNSIGNED:
        return torch.from_numpy(np.asarray(a.numpy() // b.numpy()))
    return torch.div(a, b, rounding_mode="trunc")


@op("Mod")
def mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    if a.dtype in UNSIGNED:
        return torch.from_numpy(np.asarray(a.numpy() % b.numpy()))
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@op("Pow")
def power(base: Tensor, exponent: Tensor) -> Tensor:
    """The result has the base's type; a fractional exponent is taken in floating point."""
    if base.is_floating_point():
        if exponent.numel() == 1 and not exponent.requires_grad and exponent.dim() <= base.dim():
            return torch.pow(base, exponent.item())
        return torch.pow(base, exponent.to(base.dtype))
    if exponent.is_floating_point():
        return torch.pow(base.to(torch.float64), exponent.to(torch.float64)).to(base.dtype)
    return torch.from_numpy(
        np.asarray(np.power(base.numpy(), exponent.numpy())).astype(base.numpy().dtype)
    )


@op("BitShift")
def bit_shift(a: Tensor, b: Tensor, *, direction: str) -> Tensor:
    shift = np.left_shift if direction == "LEFT" else np.right_shift
    return torch.from_numpy(np.asarray(shift(a.numpy(), b.numpy())))


@op("Max")
def maximum(*inputs: Tensor) -> Tensor:
    return reduce(_maximum, inputs)


@op("Min")
def minimum(*inputs: Tensor) -> Tensor:
    return reduce(_minimum, inputs)


@op("Sum")
def total(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs)


@op("Mean")
def mean(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


@op("Clip")
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if x.is_floating_point() and (low is not None or high is not None):
        return torch.clamp(x, low, high)  # its gradient passes at the bounds themselves
    if low is not None:
        x = _maximum(x, low)
    return x if high is None else _minimum(x, high)


@op("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


@op("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


@op("Selu")
def selu(
    x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(torch.clamp(x, max=0)))


@op("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


@op("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


@op("IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    if not x.dtype.itemsize > 1:
        x = x.to(torch.float32)
    up = torch.isposinf(x) if detect_positive else torch.zeros_like(x, dtype=torch.bool)
    return up | torch.isneginf(x) if detect_negative else up


@op("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


@op("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@op("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    moved = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))
    return moved.to(x.dtype)


@op("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@op("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


@op("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


@op("Identity")
def identity(x: Tensor) -> Tensor:
    return x
