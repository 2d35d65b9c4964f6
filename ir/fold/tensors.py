"""The tensors behind the ports of a stream, and how they are exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ir.analysis.streams import Port, Stream
from ir.edit import Edit
from ir.graph import Node, Value, array


def numbers(port: Port) -> np.ndarray:
    """The port's whole tensor as it is now, in float64. Not as it was when the streams were found:
    a weight reads one stream and writes the next."""
    found = array(port.node.inputs[port.input])
    assert found is not None
    return found.astype(np.float64)


def exchange(node: Node, index: int, data: np.ndarray, name: str, edit: Edit) -> None:
    """Give one input of a node new numbers (in the type of the old ones, if there were any)."""
    old = node.inputs[index]
    held = array(old)
    new = edit.constant(data if held is None else data.astype(held.dtype), name, at=node)
    edit.set_input(node, index, new)
    if old is not None and old.is_initializer():
        edit.drop_constant(old)


def rewrite(
    ports: Iterable[Port],
    change: Callable[[np.ndarray, Port], np.ndarray],
    ending: str,
    edit: Edit,
) -> None:
    """Change every port's rows; a tensor that several ports share at one node, once for each."""
    shared: dict[tuple[int, int], list[Port]] = {}
    for port in ports:  # a weight may write and read one stream
        shared.setdefault((id(port.node), port.input), []).append(port)
    for (_, index), parts in shared.items():
        node = parts[0].node
        data = numbers(parts[0])
        for port in parts:
            data = port.unrows(change(port.rows(data), port), data.shape)
        exchange(node, index, data, f"{node.inputs[index].name}.{ending}", edit)  # type: ignore


def rename(values: Iterable[Value], ending: str, edit: Edit) -> None:
    for value in values:
        edit.rename(value, f"{value.name}.{ending}")


def misfit(stream: Stream, count: int) -> str:
    """Why `count` numbers are not one for each of the stream's channels, or ''."""
    if count != stream.channels:
        return f"the stream has {stream.channels} channels of its own, not {count}"
    for port in (*stream.writers, *stream.readers):
        held = array(port.node.inputs[port.input])
        places = count if port.index is None else len(port.index)
        if held is None or len(port.rows(held)) != places:
            return f"%{port.tensor.name} does not hold one number per channel"
    return ""


def spread(vector: np.ndarray, port: Port, shape: tuple[int, ...], other: float) -> np.ndarray:
    """Each row's number of a vector over the channels, `other` where a row is not the stream's."""
    whole = vector if port.index is None else np.append(vector, other)[port.index]
    return whole.reshape(-1, *[1] * (len(shape) - 1))
