"""x / s in place of x: one positive factor a channel."""

from __future__ import annotations

import numpy as np

from ir.analysis.streams import Port, Stream
from ir.edit import Edit

from .tensors import misfit, rename, rewrite, spread


def fold_scale(stream: Stream, s: np.ndarray, edit: Edit) -> None:
    """Divide the stream by s[channels] > 0: its writers' tensors by s, its readers' times s.

    ValueError when the stream allows no scale, or s does not fit it (see `scale_refusal`).
    """
    reason = scale_refusal(stream, s)
    if reason:
        raise ValueError(reason)
    s = s.astype(np.float64)
    divided = {id(p) for p in stream.writers if not p.inverse}
    divided |= {id(p) for p in stream.readers if p.inverse}

    def scaled(rows: np.ndarray, port: Port) -> np.ndarray:
        return rows * spread(1 / s if id(port) in divided else s, port, rows.shape, 1.0)

    rewrite((*stream.writers, *stream.readers), scaled, "scaled", edit)
    rename(stream.values, "scaled", edit)


def scale_refusal(stream: Stream, s: np.ndarray) -> str:
    """Why s[channels] cannot be folded into the stream, or ''."""
    if stream.blocked or "scale" not in stream.maps:
        return stream.blocked or "its channels cannot be scaled"
    if s.ndim != 1 or not np.isfinite(s).all() or not (s > 0).all():
        return "a scale is one finite positive number per channel"
    return misfit(stream, len(s))
