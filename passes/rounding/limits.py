"""Rules that a kernel puts on a weight's codes, and how to keep them with the least error.

`pairs`: x86 kernels without VNNI multiply u8 by i8 with vpmaddubsw, which adds two neighbouring
products in 16 bits and saturates. 255 * (w0 + w1) stays inside when |w0 + w1| <= 128 for every pair
of neighbours of one sign; pairs of different sign never saturate. Neighbours are inputs 2j and 2j+1
in the kernel's order: as stored for MatMul and Gemm, and [kernel height, kernel width, channel] for
Conv. Codes that keep the rule are exact on every CPU with all eight bits, where peers give one bit
away or run wrong.
"""

from __future__ import annotations

import numpy as np

PAIRS = "pairs"
REACH = 128
"""Largest |w0 + w1| for which 255 * (w0 + w1) fits in 16 bits with sign."""
STRETCHES = np.linspace(1.0, 2.0, 51)
"""Scales tried, as multiples: at 2.0 no pair can break the rule."""
SHORT = 256
"""Rows up to this length choose among `NEAR` by their true error."""
NEAR = np.linspace(0.85, 1.15, 13)
"""Multiples tried around the expected best."""
_CHUNK = 1 << 17  # weights per step: its temporaries stay in the cache


def kernel_rows(weight: np.ndarray, inputs: tuple[int, ...], output: int) -> np.ndarray:
    """The weight as [N, K] with K in the kernel's order: Conv [N, C, kh, kw] puts channels last."""
    if len(inputs) > 1:
        return np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1)
    order = [i for i in range(weight.ndim) if i not in (*inputs, output)]
    rows = weight.transpose(*order, output, *inputs)
    return rows.reshape(-1, rows.shape[-1])


def from_kernel_rows(
    rows: np.ndarray, shape: tuple[int, ...], inputs: tuple[int, ...], output: int
) -> np.ndarray:
    """Undo `kernel_rows`."""
    if len(inputs) > 1:
        spatial = rows.reshape(shape[0], *shape[2:], shape[1])
        return np.moveaxis(spatial, -1, 1)
    order = [*[i for i in range(len(shape)) if i not in (*inputs, output)], output, *inputs]
    return rows.reshape([shape[i] for i in order]).transpose(np.argsort(order))


def breaks_pairs(rows: np.ndarray) -> np.ndarray:
    """Which pairs of 8-bit codes [..., K] could saturate: bool [..., K // 2].

    Two codes of different sign never sum past the reach, so that the sum alone decides.
    """
    even = rows.shape[-1] // 2 * 2
    first, second = rows[..., 0:even:2], rows[..., 1:even:2]
    total = np.add(first, second, dtype=np.int16, casting="unsafe")
    return np.abs(total, out=total) > REACH


def hold_pairs(steps: np.ndarray) -> np.ndarray:
    """Nearest codes to `steps` (weights over scale) [N, K] that keep the rule: int8 [N, K].

    A pair past the reach is projected onto |w0 + w1| = 128, both moving alike (the least squared
    error), then rounded so that the sum stays exact.
    """
    nearest = np.rint(steps)
    codes = np.clip(nearest, -127, 127, out=nearest).astype(np.int8)
    row, pair = _places(breaks_pairs(codes))
    if not len(row):
        return codes
    first, second = steps[row, 2 * pair], steps[row, 2 * pair + 1]
    sign = np.sign(first)
    share = np.clip(REACH / 2 + (np.abs(first) - np.abs(second)) / 2, 1, REACH - 1)
    left = np.clip(np.rint(share), 1, 127)
    codes[row, 2 * pair] = sign * left
    codes[row, 2 * pair + 1] = sign * np.minimum(REACH - left, 127)
    return codes


def fit_pairs(rows: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [N, K] and scales [N, 1] with little squared error that keep the rule.

    rows f32 [N, K]; scale f32 [N, 1], as the plain rounding would have it. Each row takes the
    stretch that `best_stretch` expects most of; short rows, whose errors do not average out, also
    try its neighbours.
    """
    codes = np.empty_like(rows, dtype=np.int8)  # laid out in memory as the rows are
    wider = np.empty_like(scale)
    size = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        codes[part], wider[part] = _fit(rows[part], scale[part])
    return codes, wider


def _fit(rows: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`fit_pairs` of a few rows."""
    stretch = best_stretch(rows / scale)
    if rows.shape[1] > SHORT:
        return hold_pairs(rows / (scale * stretch)), scale * stretch
    codes, found, least = None, scale, None
    for near in NEAR:
        tried = scale * stretch * np.float32(near)
        held = hold_pairs(rows / tried)
        error = np.square(held * tried - rows, dtype=np.float64).sum(-1, keepdims=True)
        if codes is None or least is None:
            codes, found, least = held, tried, error
            continue
        better = error < least
        codes = np.where(better, held, codes)
        found, least = np.where(better, tried, found), np.where(better, error, least)
    assert codes is not None
    return codes, found


def best_stretch(steps: np.ndarray) -> np.ndarray:
    """The multiple t of each row's scale with the least expected squared error: f32 [N, 1].

    steps [N, K] are weights over scale. A wider scale makes every rounding error larger (t^2 / 12
    steps^2 each) and every projected pair's smaller (half the square of what it goes past the
    reach).
    """
    even = steps.shape[1] // 2 * 2
    total = steps[:, 0:even:2] + steps[:, 1:even:2]
    row, pair = _places(np.abs(total, out=total) > REACH - 1)
    past = total[row, pair] * (steps[row, 2 * pair] * steps[row, 2 * pair + 1] > 0)
    loss = np.empty((len(STRETCHES), len(steps)))
    for number, stretch in enumerate(STRETCHES):
        still = past > REACH * stretch  # fewer at every stretch, and the others add nothing
        row, past = row[still], past[still]
        loss[number] = np.bincount(row, np.square(past - REACH * stretch) / 2, len(steps))
    loss += (steps.shape[1] / 12.0) * np.square(STRETCHES)[:, None]
    return STRETCHES[np.argmin(loss, axis=0)].astype(np.float32)[:, None]


def _places(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`np.nonzero` of bool [N, M], several times as fast; in the order of memory."""
    if mask.flags.c_contiguous:
        row, column = np.divmod(np.flatnonzero(mask), mask.shape[1] or 1)
        return row, column
    column, row = np.divmod(np.flatnonzero(mask.T), mask.shape[0] or 1)
    return row, column
