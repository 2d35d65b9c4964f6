"""Fold a map of a stream's channels into the constants that write and read it."""

from __future__ import annotations

import numpy as np

from .analysis.streams import Port, Stream
from .edit import Edit
from .graph import array


def fold_scale(stream: Stream, s: np.ndarray, edit: Edit) -> None:
    """Divide the stream by s[C] > 0: its writers' tensors by s, its readers' weights times s.

    Computed in float64, then cast. A tensor that other nodes read as well is copied for this one.
    Every value on the way means something else afterwards and takes a fresh name. ValueError when
    the stream allows no scale, or s does not fit it (see `scale_refusal`).
    """
    reason = scale_refusal(stream, s)
    if reason:
        raise ValueError(reason)
    s = s.astype(np.float64)
    ports = [(p, 1 / s) for p in stream.writers] + [(p, s) for p in stream.readers]
    places: dict[tuple[int, int], list[tuple[Port, np.ndarray]]] = {}
    for port, factor in ports:  # a weight may write and read one stream
        places.setdefault((id(port.node), _index(port)), []).append((port, factor))
    for (_, index), parts in places.items():
        port = parts[0][0]
        old = port.node.inputs[index]
        numbers = array(old)
        assert old is not None
        assert numbers is not None
        scaled = numbers.astype(np.float64)
        for part, factor in parts:
            scaled = scaled * _along(_spread(factor, part, scaled.shape), part.axis, scaled.ndim)
        name = f"{old.name}.scaled"
        new = edit.constant(scaled.astype(numbers.dtype), name, at=port.node)
        edit.set_input(port.node, index, new)
        if old.is_initializer():
            edit.drop_constant(old)
    for value in stream.values:
        edit.rename(value, f"{value.name}.scaled")


def scale_refusal(stream: Stream, s: np.ndarray) -> str:
    """Why s[C] cannot be folded into the stream, or ''."""
    if stream.blocked or "scale" not in stream.maps:
        return stream.blocked or "its channels cannot be scaled"
    if s.ndim != 1 or not np.isfinite(s).all() or not (s > 0).all():
        return "a scale is one finite positive number per channel"
    for port in (*stream.writers, *stream.readers):
        numbers = array(port.node.inputs[_index(port)])
        first, last = port.part or (0, 0 if numbers is None else numbers.shape[port.axis])
        if numbers is None or last - first != len(s):
            return f"%{port.tensor.name} does not hold one number per channel"
    return ""


def _index(port: Port) -> int:
    """Which input the port's tensor is. Not looked up by the tensor: another fold may have changed
    it since the streams were found (a weight reads one stream and writes the next)."""
    if port.node.op_type in ("Add", "Mul"):
        return next(i for i, v in enumerate(port.node.inputs) if array(v) is not None)
    return 1 if port.role == "weight" else 2


def _spread(factor: np.ndarray, port: Port, shape: tuple[int, ...]) -> np.ndarray:
    """The factors of the whole axis: 1 for channels that are not the stream's."""
    first, last = port.part or (0, len(factor))
    whole = np.ones(shape[port.axis])
    whole[first:last] = factor
    return whole


def _along(factor: np.ndarray, axis: int, size: int) -> np.ndarray:
    shape = [1] * size
    shape[axis] = -1
    return factor.reshape(shape)
