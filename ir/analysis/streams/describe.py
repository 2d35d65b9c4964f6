"""The streams of a graph as text: a line each, with the maps that it takes or why it takes none."""

from __future__ import annotations

from .ports import Port, Stream


def describe(stream: Stream) -> str:
    """`scale, shift: 8 of %h[1] by Gemm.weight, Gemm.bias for MatMul.weight`, or the reason."""
    where = f"%{stream.value.name}[{stream.axis}]"
    beside = f" beside %{stream.pair.name}" if stream.pair is not None else ""
    if stream.blocked:
        return f"{where}{beside}: {stream.blocked}"
    maps = ", ".join(m for m in ("scale", "shift", "permute") if m in stream.maps)
    span = f" within {stream.span}" if stream.span and "permute" in stream.maps else ""
    count = f"{stream.channels} in {_places(stream)}"
    by, to = (", ".join(map(_port, ports)) for ports in (stream.writers, stream.readers))
    return f"{maps}{span}: {count} of {where}{beside} by {by} for {to}"


def _places(stream: Stream) -> int:
    if stream.index is None:
        return stream.channels
    return int((stream.index >= 0).sum())


def _port(port: Port) -> str:
    part = f"[{port.part[0]}:{port.part[1]}]" if port.part else ""
    return f"{port.node.op_type} %{port.tensor.name}{part}"
