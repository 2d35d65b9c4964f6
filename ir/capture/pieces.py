"""A model as the bytes of one ModelProto, piece by piece: no weight is copied to be written.

Protobuf's own serialiser needs every weight twice more in memory, inside the message and inside its
bytes. Here the message is made without the large weights, and each follows as its own field: its
tag, its length, the bytes of the array as they lie in memory or in the mapped file.
source:   protobuf encoding, https://protobuf.dev/programming-guides/encoding (wire type 2); field
          numbers of onnx.proto
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from ir.capture.detached import detached, in_memory, initializers, is_large
from ir.errors import OutputError

Piece = bytes | memoryview
_MODEL = onnx.ModelProto.DESCRIPTOR.fields_by_name
_GRAPH = onnx.GraphProto.DESCRIPTOR.fields_by_name
_TENSOR = onnx.TensorProto.DESCRIPTOR.fields_by_name


def pieces(model: ir.Model) -> Iterator[Piece]:
    """The bytes of `model` in the order they are to be written; external weights are read in.

    Raises OutputError when what is not a weight of the main graph passes 2 GB.
    """
    copy = detached(model, keep_initializers=True)
    large: dict[str, ir.TensorProtocol] = {}
    for value in initializers(copy):
        tensor = value.const_value
        if tensor is not None and value.graph is copy.graph and is_large(value):
            large[value.name or ""] = tensor
            value.const_value = _placeholder(tensor, value.name)
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = in_memory(tensor)
    proto = ir.to_proto(copy)
    tensors = [_tensor(each, large.get(each.name)) for each in proto.graph.initializer]
    del proto.graph.initializer[:]
    graph = serialise(proto.graph)
    proto.ClearField("graph")
    size = len(graph) + sum(len(head) + (0 if w is None else w.nbytes) for head, w in tensors)
    yield serialise(proto) + _tag(_MODEL["graph"].number) + _varint(size) + graph
    for head, weight in tensors:
        yield head
        if weight is not None:
            yield _bytes_of(weight)


def _tensor(
    proto: onnx.TensorProto, weight: ir.TensorProtocol | None
) -> tuple[bytes, ir.TensorProtocol | None]:
    """One initializer of the graph, up to the bytes of the `weight` that the proto lacks."""
    raw = b""
    if weight is not None:
        proto.ClearField("external_data")
        proto.ClearField("data_location")
        raw = _tag(_TENSOR["raw_data"].number) + _varint(weight.nbytes)
    head = serialise(proto) + raw
    size = len(head) + (0 if weight is None else weight.nbytes)
    return _tag(_GRAPH["initializer"].number) + _varint(size) + head, weight


def _bytes_of(tensor: ir.TensorProtocol) -> Piece:
    """The tensor's little-endian bytes: a view of its array where that lies in memory like this."""
    array = tensor.numpy()
    plain = array.flags.c_contiguous and array.nbytes == tensor.nbytes
    if plain and sys.byteorder == "little" and array.dtype.byteorder != ">":
        return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    return tensor.tobytes()


def _placeholder(tensor: ir.TensorProtocol, name: str | None) -> ir.ExternalTensor:
    """A tensor of the same type and shape that holds no numbers."""
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(
        "-", 0, tensor.nbytes, tensor.dtype, shape=shape, name=name or "",
        doc_string=tensor.doc_string,
    )  # fmt: skip


def _tag(field: int) -> bytes:
    """Begins a field of bytes whose length follows: wire type 2."""
    return _varint(field << 3 | 2)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first, the top bit set in all but the last."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def serialise(proto) -> bytes:
    """A message's bytes. Raises OutputError above 2 GB."""
    try:
        return proto.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise OutputError(
            "the model is larger than one protobuf can be", hint="save with external=True"
        ) from error
