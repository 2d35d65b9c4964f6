"""Where ONNX Runtime's u8 x i8 kernels would saturate, and codes that cannot.

Without VNNI these kernels multiply with vpmaddubsw, which adds two neighbouring products in 16
bits and saturates (measured on ONNX Runtime 1.32: 19 dB lost on a small CNN). A pair of codes
(w0, w1) of one sign is exact for every activation when |w0 + w1| <= 128, for 255 * 128 still fits;
a pair of different signs always is. Pairs are neighbours along the inputs as the kernel lays them
out: rows of a K x N matrix; kernel height, kernel width, channel of a Conv. Depthwise kernels (one
channel in, one out per group) do not saturate.
"""

from __future__ import annotations

import numpy as np

REACH = 128


def conv_rows(weight: np.ndarray) -> np.ndarray:
    """A Conv weight [N, C, *kernel] as the K x N matrix that the kernel multiplies with."""
    return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1).T


def saturates(rows: np.ndarray) -> bool:
    """Whether some pair of codes i8 [K, N] can leave 16 bits."""
    even = rows.shape[0] // 2 * 2
    total = rows[0:even:2].astype(np.int16) + rows[1:even:2]
    return bool((np.abs(total) > REACH).any())


def depthwise(shape: tuple[int, ...], group: int) -> bool:
    """Whether a Conv weight [N, C / group, *kernel] has one input and one output per group."""
    return group > 1 and shape[1] == 1 and shape[0] == group


def unsigned(codes: np.ndarray) -> np.ndarray:
    """Codes i8 as u8 around 128: u8 x u8 kernels are exact for any codes, though slower."""
    return (codes.astype(np.int16) + 128).astype(np.uint8)
