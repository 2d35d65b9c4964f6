"""Ops where onnx.reference computes in single precision or departs from the standard's text."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from scipy import special


class Erf(OpRun):
    """In the input's precision; onnx.reference rounds to float32."""

    op_domain = ""

    def _run(self, x: np.ndarray, **_: Any) -> tuple[np.ndarray]:
        return (np.asarray(special.erf(x)).astype(x.dtype),)


class Gelu(OpRun):
    """In the input's precision; the standard's body holds float32 constants."""

    op_domain = ""

    def _run(self, x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray]:
        if approximate == "tanh":
            inner = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        else:
            inner = special.erf(x / np.sqrt(2))
        return ((0.5 * x * (1 + inner)).astype(x.dtype),)


class LRN(OpRun):
    """Over all channels; onnx.reference fills as many channels as there are samples."""

    op_domain = ""

    def _run(
        self, x: np.ndarray, alpha: float, beta: float, bias: float, size: int
    ) -> tuple[np.ndarray]:
        squares = np.zeros_like(x)
        for channel in range(x.shape[1]):
            first, last = max(channel - (size - 1) // 2, 0), channel + size // 2 + 1
            squares[:, channel] = np.square(x[:, first:last]).sum(1)
        return ((x / (bias + alpha / size * squares) ** beta).astype(x.dtype),)


class GroupNormalization(OpRun):
    """In the input's precision; the standard's body casts to float32 and back."""

    op_domain = ""

    def _run(
        self,
        x: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        epsilon: float,
        num_groups: int,
        **_: Any,
    ) -> tuple[np.ndarray]:
        groups = x.reshape(x.shape[0], num_groups, -1)
        centred = groups - groups.mean(-1, keepdims=True)
        unit = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon)
        along = (-1,) + (1,) * (x.ndim - 2)
        y = unit.reshape(x.shape) * scale.reshape(along) + bias.reshape(along)
        return (y.astype(x.dtype),)


class MeanVarianceNormalization(OpRun):
    """In any precision; the standard's body adds a float32 constant."""

    op_domain = ""

    def _run(self, x: np.ndarray, axes: list[int] | None = None) -> tuple[np.ndarray]:
        over = tuple(axes or (0, 2, 3))
        centred = x - x.mean(over, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(over, keepdims=True))
        return ((centred / (deviation + x.dtype.type(1e-9))).astype(x.dtype),)


class GatherElements(OpRun):
    """Of axes of any length; onnx.reference chooses among at most 64 rows."""

    op_domain = ""

    def _run(self, x: np.ndarray, indices: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
        rows = tuple(slice(size) for size in indices.shape)
        kept = tuple(slice(None) if a == axis % x.ndim else r for a, r in enumerate(rows))
        return (np.take_along_axis(x[kept], indices, axis),)


CORRECTED = [Erf, Gelu, LRN, GroupNormalization, MeanVarianceNormalization, GatherElements]
