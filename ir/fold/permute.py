"""x[order] in place of x: the channels in another order."""

from __future__ import annotations

import numpy as np

from ir.analysis.streams import Port, Stream
from ir.edit import Edit

from .tensors import misfit, rename, rewrite


def fold_permute(stream: Stream, order: np.ndarray, edit: Edit) -> None:
    """Let channel c of the stream be what channel order[c] was, in all its writers and readers.

    ValueError when the stream allows no permutation, or order is none of its channels, or moves one
    out of its run (see `permute_refusal`).
    """
    reason = permute_refusal(stream, order)
    if reason:
        raise ValueError(reason)
    rewrite(
        (*stream.writers, *stream.readers),
        lambda rows, port: rows[rows_from(port, order)],
        "permuted",
        edit,
    )
    rename(stream.values, "permuted", edit)


def permute_refusal(stream: Stream, order: np.ndarray) -> str:
    """Why the order cannot be folded into the stream, or ''."""
    if stream.blocked or "permute" not in stream.maps:
        return stream.blocked or "its channels cannot be permuted"
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(order))):
        return "an order names every channel once"
    if stream.span and (order // stream.span != np.arange(len(order)) // stream.span).any():
        return f"a channel stays among its {stream.span} neighbours of one head or group"
    return misfit(stream, len(order))


def rows_from(port: Port, order: np.ndarray) -> np.ndarray:
    """The old row of each new one. A channel's rows (one in each head that shares it) keep their
    order among each other."""
    if port.index is None:
        return order
    found = np.arange(len(port.index))
    grouped = np.argsort(port.index, kind="stable")
    grouped = grouped[port.index[grouped] >= 0]
    starts = np.searchsorted(port.index[grouped], np.arange(len(order)))
    turn = np.arange(len(grouped)) - starts[port.index[grouped]]
    found[grouped] = grouped[starts[order[port.index[grouped]]] + turn]
    return found
