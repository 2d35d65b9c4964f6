"""x[order] in place of x: the channels in another order."""

from __future__ import annotations

import numpy as np

from ir.analysis.streams import Port, Stream
from ir.edit import Edit

from .tensors import misfit, places, rename, rewrite


def fold_permute(stream: Stream, order: np.ndarray, edit: Edit) -> None:
    """Let channel c of the stream be what channel order[c] was, in all its writers and readers.

    ValueError when the stream allows no permutation, or order is none of its channels.
    """
    reason = permute_refusal(stream, order)
    if reason:
        raise ValueError(reason)

    def permuted(data: np.ndarray, port: Port) -> np.ndarray:
        where = places(port, data.ndim)
        data[where] = np.take(data[where], order, port.axis)
        return data

    rewrite((*stream.writers, *stream.readers), permuted, "permuted", edit)
    rename(stream.values, "permuted", edit)


def permute_refusal(stream: Stream, order: np.ndarray) -> str:
    """Why the order cannot be folded into the stream, or ''."""
    if stream.blocked or "permute" not in stream.maps:
        return stream.blocked or "its channels cannot be permuted"
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order))):
        return "an order names every channel once"
    return misfit(stream, len(order))
