"""The tensors behind the ports of a stream: which input they are, and how they are exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ir.analysis.streams import Port, Stream
from ir.edit import Edit
from ir.graph import Node, Value, array

_INPUTS = {"Gather": 0, "PRelu": 1}


def input_of(port: Port) -> int:
    """Which input the port's tensor is. Not looked up by the tensor: another fold may have changed
    it since the streams were found (a weight reads one stream and writes the next)."""
    if port.node.op_type in ("Add", "Mul", "Sub", "Div"):
        return next(i for i, v in enumerate(port.node.inputs) if array(v) is not None)
    return _INPUTS.get(port.node.op_type, 1 if port.role == "weight" else 2)


def numbers(port: Port) -> np.ndarray:
    """The port's whole tensor as it is now, in float64."""
    found = array(port.node.inputs[input_of(port)])
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
    """Change every port's tensor; one that several ports share at one node, once for each."""
    places: dict[tuple[int, int], list[Port]] = {}
    for port in ports:  # a weight may write and read one stream
        places.setdefault((id(port.node), input_of(port)), []).append(port)
    for (_, index), parts in places.items():
        node = parts[0].node
        data = numbers(parts[0])
        for port in parts:
            data = change(data, port)
        exchange(node, index, data, f"{node.inputs[index].name}.{ending}", edit)  # type: ignore


def rename(values: Iterable[Value], ending: str, edit: Edit) -> None:
    for value in values:
        edit.rename(value, f"{value.name}.{ending}")


def misfit(stream: Stream, count: int) -> str:
    """Why `count` channels are not those of the stream's tensors, or ''."""
    for port in (*stream.writers, *stream.readers):
        held = array(port.node.inputs[input_of(port)])
        first, last = port.part or (0, 0 if held is None else held.shape[port.axis])
        if held is None or last - first != count:
            return f"%{port.tensor.name} does not hold one number per channel"
    return ""


def along(vector: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The vector as an array of rank `size` that runs along one axis."""
    shape = [1] * size
    shape[axis] = -1
    return vector.reshape(shape)


def places(port: Port, size: int) -> tuple[slice, ...]:
    """Where a tensor of rank `size` holds the stream's channels."""
    chosen = [slice(None)] * size
    chosen[port.axis] = slice(*(port.part or (None, None)))
    return tuple(chosen)
