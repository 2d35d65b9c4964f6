"""Fourier transforms; complex numbers are a last axis of length 2."""

from __future__ import annotations

import torch
from torch import Tensor

from backends.torch.table import op


def _complex(x: Tensor) -> Tensor:
    """[..., 1 or 2] -> complex128 [...]: in double, since long float32 transforms lose digits."""
    wide = x.to(torch.float64)
    if x.shape[-1] == 1:
        wide = torch.cat([wide, torch.zeros_like(wide)], -1)
    return torch.view_as_complex(wide.contiguous())


@op("DFT")
def dft(
    x: Tensor,
    length: Tensor | None = None,
    axis_in: Tensor | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    dim = axis if axis_in is None else int(axis_in)
    dim = dim + x.dim() if dim < 0 else dim
    size = x.shape[dim] if length is None else int(length)
    signal = _complex(x)
    if inverse and onesided:
        if length is None:
            size = 2 * (x.shape[dim] - 1)
        return torch.fft.irfft(signal, size, dim).unsqueeze(-1).to(x.dtype)
    y = torch.fft.ifft(signal, size, dim) if inverse else torch.fft.fft(signal, size, dim)
    if onesided:
        y = y.narrow(dim, 0, size // 2 + 1)
    return torch.view_as_real(y).to(x.dtype)


@op("STFT")
def stft(
    x: Tensor,
    step: Tensor,
    window: Tensor | None = None,
    length: Tensor | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    """x[B, T, 1 or 2] -> [B, frames, bins, 2]."""
    size = int(length) if length is not None else len(window) if window is not None else 0
    signal = x if x.dim() == 3 else x.unsqueeze(-1)
    frames = _complex(signal).unfold(1, size, int(step))
    if window is not None:
        frames = frames * window.to(torch.float64)
    y = torch.fft.fft(frames, dim=-1)
    y = y[..., : size // 2 + 1] if onesided else y
    return torch.view_as_real(y).to(x.dtype)
