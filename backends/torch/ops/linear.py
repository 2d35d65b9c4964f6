"""Matrix products, in floating point and exact in integers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.table import op


@op("MatMul")
def mat_mul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@op("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a = a.T if transA else a
    if alpha == 1.0 and beta == 1.0:
        weight = b if transB else b.T
        if c is None or (c.dim() == 1 and c.shape[0] == weight.shape[0]):
            return F.linear(a, weight, c)
    y = torch.matmul(a, b.T if transB else b)
    y = y if alpha == 1.0 else _scaled(y, alpha)
    return y if c is None else y + (c if beta == 1.0 else _scaled(c, beta))


def _scaled(x: Tensor, factor: float) -> Tensor:
    return (x * factor).to(x.dtype)


@op("Einsum")
def einsum(*inputs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation.replace(" ", ""), *inputs)


@op("Det")
def det(x: Tensor) -> Tensor:
    return torch.linalg.det(x)


def exact_matmul(a: Tensor, b: Tensor) -> Tensor:
    """int32 product of integer tensors; float64 holds every partial sum exactly below 2^53."""
    return torch.matmul(a.to(torch.float64), b.to(torch.float64)).to(torch.int64).to(torch.int32)


def centred(codes: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """codes - zero as int32; a 1-D zero lies along `axis`."""
    wide = codes.to(torch.int32)
    if zero is None:
        return wide
    zero = zero.to(torch.int32)
    if zero.dim() == 1 and zero.shape[0] > 1:
        shape = [1] * codes.dim()
        shape[axis] = -1
        zero = zero.reshape(shape)
    elif zero.dim() == 1:
        zero = zero.reshape(())
    return wide - zero


@op("MatMulInteger")
def mat_mul_integer(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    left = centred(a, a_zero, -2 if a.dim() > 1 else -1)
    return exact_matmul(left, centred(b, b_zero, -1))
