"""x[order] in place of x, where channels may come several times: copies share their weight."""

from __future__ import annotations

import numpy as np
import onnx_ir

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op
from ir.analysis.streams import Port, Stream
from ir.analysis.streams.elementwise import CHECKED, UNARY
from ir.edit import Edit
from ir.graph import Node, Value, readers

from .tensors import misfit, rename, rewrite

ALONE = (*CHECKED, *UNARY, "Relu", "LeakyRelu", "Neg", "Abs", "Identity", "Cast", "Dropout")
"""Ops that compute each channel from that channel alone, whatever the others are."""
LAYERS = ("MatMul", "Gemm")


def fold_repeat(stream: Stream, order: np.ndarray, edit: Edit) -> None:
    """Let channel c of the stream be what channel order[c] was; the stream is one of `permute`.

    Every channel comes at least once. Readers' weights are divided by how often it does, so that
    the copies together add what the one did. ValueError where `repeat_refusal` says why not.
    """
    reason = repeat_refusal(stream, order)
    if reason:
        raise ValueError(reason)
    counts = np.bincount(order, minlength=stream.channels)
    read = set(map(id, stream.readers))

    def repeated(rows: np.ndarray, port: Port) -> np.ndarray:
        taken = rows[order]
        if id(port) not in read:
            return taken
        return taken / counts[order].reshape(-1, *[1] * (taken.ndim - 1))

    rewrite((*stream.writers, *stream.readers), repeated, "split", edit)
    for value in stream.values:
        assert value.shape is not None
        value.shape = onnx_ir.Shape([*list(value.shape)[:-1], len(order)])
    rename(stream.values, "split", edit)


def repeat_refusal(stream: Stream, order: np.ndarray) -> str:
    """Why channels of the stream cannot be repeated, or ''."""
    if stream.blocked or "permute" not in stream.maps:
        return stream.blocked or "its channels cannot be permuted"
    if order.ndim != 1 or not np.array_equal(np.unique(order), np.arange(stream.channels)):
        return "an order names every channel at least once"
    if stream.span or any(p.index is not None for p in (*stream.writers, *stream.readers)):
        return "its channels come in groups of a fixed size"
    for value in stream.values:
        reason = _refused(value, stream)
        if reason:
            return reason
    return misfit(stream, stream.channels)


def _refused(value: Value, stream: Stream) -> str:
    held = shapes.dims(value)
    if not held or held[-1] != stream.channels:
        return f"%{value.name} does not hold them along its last axis"
    layers = {id(port.node) for port in stream.readers}
    maker = value.producer()
    nodes: list[Node] = [node for node, _ in readers(value) if id(node) not in layers]
    if maker is not None and not is_op(maker, *LAYERS):
        nodes.append(maker)
    for node in nodes:
        if not is_op(node, *ALONE):
            return f"{node.op_type} '{node.name}' would see the copies"
    other = [p.node for p in stream.readers if not is_op(p.node, *LAYERS)]
    return f"{other[0].op_type} '{other[0].name}' reads them" if other else ""
