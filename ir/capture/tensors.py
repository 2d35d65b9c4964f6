"""Weights of a source: checked against what they claim, and owned without needless copies."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from ir.errors import CaptureError

_COPY_BESIDE = "keep the weights file in the model's own folder, as a plain file"


def owned(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
    """The same numbers under a tensor object of our own, so that renaming it touches nobody.

    A tensor inside a protobuf is turned into an array once, since every later look at it would
    copy it out of the message again; any other tensor shares its memory or its file.
    """
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=name)
    mine = copy.copy(tensor)
    mine.name = name
    return mine


class Base(NamedTuple):
    """Where external data may be."""

    folder: Path | None
    """The folder of the model's file, None for a model that came without a file."""
    own: str | None = None
    """The location that stands for the model's own file (`ir.capture.mapped`)."""


def check_tensor(proto: onnx.TensorProto, base: Base, where: str) -> None:
    """Raise CaptureError unless the type is known and the data is exactly what the dims demand."""
    at = f"{where} '{proto.name}'"
    try:
        dtype = ir.DataType(proto.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise CaptureError(f"unknown element type {proto.data_type}", at=at)
    if any(dim < 0 for dim in proto.dims):
        raise CaptureError(f"negative dimension in {list(proto.dims)}", at=at)
    count = math.prod(proto.dims)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(proto, dtype, count, base, at)
    elif dtype == ir.DataType.STRING:
        _demand(len(proto.string_data), count, "strings", at)
    elif proto.HasField("raw_data"):
        _demand(len(proto.raw_data), byte_count(dtype, count), "bytes", at)
    else:
        _check_typed(proto, dtype, count, at)


def byte_count(dtype: ir.DataType, count: int) -> int:
    """Bytes of `count` elements, packed where the type is narrower than a byte."""
    return -(-count * dtype.bitwidth // 8)


def _demand(found: int, wanted: int, unit: str, at: str) -> None:
    if found != wanted:
        raise CaptureError(
            f"the shape needs {wanted} {unit}, the data has {found}",
            at=at,
            hint="the model is damaged: download or export it again",
        )


def _check_typed(proto: onnx.TensorProto, dtype: ir.DataType, count: int, at: str) -> None:
    """Data in float_data, int32_data, ...: a field per element, except packed and complex types."""
    match dtype:
        case ir.DataType.FLOAT | ir.DataType.COMPLEX64:
            found = len(proto.float_data)
        case ir.DataType.DOUBLE | ir.DataType.COMPLEX128:
            found = len(proto.double_data)
        case ir.DataType.INT64:
            found = len(proto.int64_data)
        case ir.DataType.UINT32 | ir.DataType.UINT64:
            found = len(proto.uint64_data)
        case _:
            found = len(proto.int32_data)
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        count *= 2
    elif dtype.bitwidth < 8:
        count = byte_count(dtype, count)
    _demand(found, count, "numbers", at)


def _check_external(
    proto: onnx.TensorProto, dtype: ir.DataType, count: int, base: Base, at: str
) -> None:
    entries = {entry.key: entry.value for entry in proto.external_data}
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise CaptureError("offset or length of external data is not a number", at=at) from None
    wanted = byte_count(dtype, count)
    if base.own is not None and location == base.own:  # no offset but the file's own can be there
        _demand(length, wanted, "bytes", at)
        return
    if base.folder is None:
        raise CaptureError(
            f"its data is in the file '{location}', but the model came without a folder",
            at=at,
            hint="give capture the path of the .onnx file instead",
        )
    size = external_size(base.folder, location, at)
    if "length" in entries:
        _demand(length, wanted, "bytes", at)
    if offset < 0 or offset + wanted > size:
        raise CaptureError(
            f"external data '{location}' has {size} bytes; {wanted} are needed from byte {offset}",
            at=at,
            hint="the weights file is incomplete: fetch it again",
        )


def external_size(base: Path, location: str, at: str) -> int:
    """Bytes of an external weights file, which must be a plain file inside the folder `base`."""
    if not location or "\0" in location:
        raise CaptureError("external data names no file", at=at)
    folder = os.path.realpath(base)
    lexical = os.path.normpath(os.path.join(folder, location))
    real = os.path.realpath(os.path.join(folder, location))
    inside = all(path.startswith(folder.rstrip(os.sep) + os.sep) for path in (lexical, real))
    if os.path.isabs(location) or not inside:
        raise CaptureError(
            f"external data '{location}' leaves the model's folder", at=at, hint=_COPY_BESIDE
        )
    if not os.path.exists(real):
        raise CaptureError(f"external data '{location}' is missing", at=at, hint=_COPY_BESIDE)
    if not os.path.isfile(real) or os.stat(real).st_nlink > 1:
        raise CaptureError(
            f"external data '{location}' is not a plain file with one name",
            at=at,
            hint=_COPY_BESIDE,
        )
    return os.stat(real).st_size
