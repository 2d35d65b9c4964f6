"""An .onnx file read without its weights, which stay in the file and are mapped into memory.

ONNX files are protobuf messages: fields of (number, kind, payload). Parsing one copies every weight
twice. Here the file is walked first, large `raw_data` payloads are left out, and the tensors that
held them say where in the file they are; only the rest, names and nodes, is parsed.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401  (teaches numpy bfloat16 and the like)
import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

SMALLEST = 1 << 16
"""Bytes of payload from which a tensor stays in the file."""

_DEEPEST = 90  # protobuf itself refuses messages nested a hundred deep
_RAW_DATA = 9
# Which fields of a message are messages that may hold tensors: number -> their kind.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
# Fields that hold one message: of two occurrences, protobuf makes one by merging.
_SINGLE = {("model", 7), ("attribute", 5), ("attribute", 6)}


class Field(NamedTuple):
    """One field: its number and wire type, and where its tag, its payload begin and it ends."""

    number: int
    wire: int
    start: int
    payload: int
    end: int


class Odd(Exception):
    """Bytes that this walk leaves to the full parser, which judges them."""


class Mapped:
    """A file in memory as a map. `proto()` is its model, in which tensors cut out are external
    data at `token`, a name that no file can know; `array()` gives their numbers."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.token = secrets.token_hex(16)

    def proto(self) -> onnx.ModelProto:
        """raises: DecodeError when the file is no ModelProto."""
        proto = onnx.ModelProto()
        try:
            parts = self._cut("model", 0, len(self.bytes), 0)
        except Odd:
            proto.ParseFromString(self.bytes[:])
        else:
            proto.ParseFromString(b"".join(parts))
        return proto

    def array(self, tensor: ir.ExternalTensor) -> ir.Tensor:
        """The numbers of a tensor that was cut out: a read-only view of the file."""
        dtype, shape = tensor.dtype, tuple(tensor.shape.numpy())
        numbers = np.frombuffer(
            self.bytes, dtype.numpy().newbyteorder("<"), tensor.size, tensor.offset or 0
        )
        return ir.Tensor(numbers.reshape(shape), dtype=dtype, name=tensor.name)

    def _cut(self, kind: str, start: int, end: int, depth: int) -> list[bytes]:
        """The message from start to end as bytes without large payloads, in parts."""
        if depth > _DEEPEST:
            raise Odd
        parts: list[bytes] = []
        copied, seen = start, set()
        for field in fields(self.bytes, start, end):
            inner = _INSIDE[kind].get(field.number)
            if inner is None or field.wire != 2:
                continue
            if (kind, field.number) in _SINGLE and field.number in seen:
                raise Odd
            seen.add(field.number)
            if field.end - field.payload < SMALLEST:
                continue
            changed = (
                self._tensor(field)
                if inner == "tensor"
                else self._cut(inner, field.payload, field.end, depth + 1)
            )
            if changed is not None:
                parts.append(self.bytes[copied : field.start])
                parts += [varint(field.number << 3 | 2), varint(sum(map(len, changed))), *changed]
                copied = field.end
        return [*parts, self.bytes[copied:end]]

    def _tensor(self, whole: Field) -> list[bytes] | None:
        """A TensorProto as external data in this very file; None to leave it as it is."""
        found = list(fields(self.bytes, whole.payload, whole.end))
        raw = [field for field in found if field.number == _RAW_DATA]
        if len(raw) != 1 or raw[0].wire != 2 or raw[0].end - raw[0].payload < SMALLEST:
            return None
        rest = self.bytes[whole.payload : raw[0].start] + self.bytes[raw[0].end : whole.end]
        proto = onnx.TensorProto()
        try:
            proto.ParseFromString(rest)
        except DecodeError:
            raise Odd from None
        if proto.data_location or proto.external_data or not _mappable(proto.data_type):
            return None
        proto.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": self.token, "offset": raw[0].payload,
                 "length": raw[0].end - raw[0].payload}  # fmt: skip
        for key, value in place.items():
            proto.external_data.add(key=key, value=str(value))
        return [proto.SerializeToString()]


def _mappable(data_type: int) -> bool:
    """Whether the numbers lie in the file as numpy holds them: a whole number of bytes each."""
    try:
        dtype = ir.DataType(data_type)
        return dtype.bitwidth >= 8 and dtype not in (ir.DataType.STRING, ir.DataType.UNDEFINED)
    except (ValueError, TypeError):
        return False


def fields(content: mmap.mmap | bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message from start to end; raises Odd where they do not add up."""
    at = start
    while at < end:
        begin = at
        tag, at = _varint(content, at, end)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(content, at, end)
            payload, at = at, at + size
        elif wire == 0:
            payload = at
            _, at = _varint(content, at, end)
        elif wire in (1, 5):
            payload, at = at, at + (8 if wire == 1 else 4)
        else:  # groups, which no version of ONNX has
            raise Odd
        if at > end or not tag >> 3:
            raise Odd
        yield Field(tag >> 3, wire, begin, payload, at)


def _varint(content: mmap.mmap | bytes, at: int, end: int) -> tuple[int, int]:
    """(number, where it ends): seven bits a byte, lowest first, until a byte below 128."""
    number = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        number |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return number, at
        shift += 7
    raise Odd


def varint(number: int) -> bytes:
    """The bytes of a number, seven bits each, lowest first."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)
