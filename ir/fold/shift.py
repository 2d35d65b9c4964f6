"""x - z in place of x: a constant a channel, moved into the biases behind."""

from __future__ import annotations

import numpy as np

from ir.analysis.streams import Port, Stream, unshifted
from ir.edit import Edit
from ir.graph import Node, array, attribute, constant, rank, readers

from .tensors import exchange, misfit, numbers, rename, rewrite, spread


def fold_shift(stream: Stream, z: np.ndarray, edit: Edit) -> None:
    """Subtract z[channels] from the stream: its writers' biases less z, its readers' plus W z.

    Of several biases on the way from a weight, the first takes z. A reader without a bias gets one:
    Gemm and Conv as an input, MatMul as an Add behind it.
    ValueError when the stream allows no shift, or z does not fit it (see `shift_refusal`).
    """
    reason = shift_refusal(stream, z)
    if reason:
        raise ValueError(reason)
    z = z.astype(np.float64)

    def less(rows: np.ndarray, port: Port) -> np.ndarray:
        beta = attribute(port.node, "beta", 1.0) if port.node.op_type == "Gemm" else 1.0
        sign = -1 if port.node.op_type == "Sub" else 1
        return rows - spread(sign * z / beta, port, rows.shape, 0.0)

    kept = set(map(id, unshifted(stream)))
    rewrite(stream.biases, less, "shifted", edit)
    for port in stream.readers:
        _move_on(port, z, edit)
    rename((v for v in stream.values if id(v) not in kept), "shifted", edit)


def shift_refusal(stream: Stream, z: np.ndarray) -> str:
    """Why z[channels] cannot be folded into the stream, or ''."""
    if stream.blocked or "shift" not in stream.maps:
        return stream.blocked or "its channels cannot be shifted"
    if z.ndim != 1 or not np.isfinite(z).all():
        return "a shift is one finite number per channel"
    return misfit(stream, len(z))


def contribution(port: Port, z: np.ndarray) -> np.ndarray:
    """W z of a reader: what z at its input adds to its output, per output channel."""
    w = numbers(port)
    rows = port.rows(w)
    moved = port.unrows(rows * spread(z, port, rows.shape, 0.0), w.shape)
    if port.node.op_type == "Conv":
        return moved.reshape(len(w), -1).sum(axis=1)
    total = moved.sum(axis=port.axis, keepdims=w.ndim > 2)
    return attribute(port.node, "alpha", 1.0) * total if port.node.op_type == "Gemm" else total


def _move_on(port: Port, z: np.ndarray, edit: Edit) -> None:
    node, more = port.node, contribution(port, z)
    dtype = numbers_type(port)
    held = node.inputs[2] if len(node.inputs) > 2 else None
    if node.op_type == "MatMul" or (held is not None and constant(held) is None):
        return _add_behind(node, more.astype(dtype), edit)
    name = f"{node.outputs[0].name}.bias" if held is None else f"{held.name}.shifted"
    if held is None:
        if len(node.inputs) < 3:
            edit.add_input(node)
        if attribute(node, "beta", 1.0) != 1.0:
            edit.attribute(node, "beta", None)
        return exchange(node, 2, more.astype(dtype), name, edit)
    before = array(held)
    assert before is not None
    beta = attribute(node, "beta", 1.0)
    if beta != 1.0:
        edit.attribute(node, "beta", None)
    return exchange(node, 2, beta * before.astype(np.float64) + more, name, edit)


def numbers_type(port: Port) -> np.dtype:
    tensor = array(port.node.inputs[1])
    assert tensor is not None
    return tensor.dtype


def _add_behind(node: Node, row: np.ndarray, edit: Edit) -> None:
    """Add a row to what a node computes, in the Add of its bias where it has one."""
    product = node.outputs[0]
    name = str(product.name)
    add = _bias_add(node)
    if add is not None:
        index = next(i for i, v in enumerate(add.inputs) if v is not product)
        before, held = add.inputs[index], array(add.inputs[index])
        assert before is not None
        assert held is not None
        exchange(add, index, held.astype(np.float64) + row, f"{before.name}.shifted", edit)
    else:
        held = edit.constant(row, f"{name}.bias", at=node)
        add = edit.node("Add", [product, held], like=name, after=node)
        edit.replace(product, add.outputs[0])
        edit.take_name(product, add.outputs[0])
    edit.rename(product, f"{name}.product")


def _bias_add(node: Node) -> Node | None:
    """The Add that alone reads the node and adds a constant that is no larger than its result."""
    product = node.outputs[0]
    uses = readers(product)
    if len(uses) != 1 or product.is_graph_output() or uses[0][0].op_type != "Add":
        return None
    add = uses[0][0]
    held = constant(next((v for v in add.inputs if v is not product), None))
    size = rank(product)
    return add if held is not None and size is not None and len(held.shape) <= size else None
