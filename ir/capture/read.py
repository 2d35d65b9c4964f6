"""ONNX files, protos, onnx_ir models and graphsurgeon graphs -> an onnx_ir model of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from ir.capture.mapped import Mapped
from ir.capture.names import nested
from ir.capture.tensors import Base, owned
from ir.capture.wellformed import check_proto
from ir.errors import CaptureError

_LARGEST_PROTO = 2**31 - 1


def read_path(path: Path) -> ir.Model:
    """Read an .onnx file; external data stays in its file, mapped when first looked at."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CaptureError("not a file", at=path, hint="give the path of an .onnx file")
        if size == 0:
            raise CaptureError("the file is empty", at=path, hint="fetch or export it again")
        if size > _LARGEST_PROTO:
            raise CaptureError(
                "larger than 2 GB, which no ONNX file can be",
                at=path,
                hint="save it with external data",
            )
        mapped = Mapped(path)
    except OSError as error:
        raise CaptureError(
            f"cannot read the model: {error.strerror}", at=path, hint="check the path"
        ) from error
    try:
        proto = mapped.proto()
    except DecodeError as error:
        raise CaptureError(
            "not an ONNX model, or cut short", at=path, hint="fetch or export it again"
        ) from error
    try:
        return read_proto(proto, path.absolute().parent, mapped)
    except CaptureError as error:
        error.at = path if error.at is None else f"{error.at} in {path.name}"
        raise


def read_proto(
    proto: onnx.ModelProto, folder: Path | None = None, mapped: Mapped | None = None
) -> ir.Model:
    """Turn a checked proto into a model that shares nothing with it but its strings.

    folder: where external data must lie; mapped: the file that large weights were left in.
    """
    check_proto(proto, Base(folder, mapped.token if mapped is not None else None))
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps whatever a malformed field provoked
        cause = error.__cause__ or error
        raise CaptureError(
            f"the model is malformed: {cause}", hint="check it with onnx.checker"
        ) from error
    if folder is not None:
        _open_external(model, folder, mapped)
    _own_tensors(model)
    return model


def read_model(model: ir.Model) -> ir.Model:
    """A clone: graphs and nodes are new, the weights' memory is shared."""
    for holder in (model.graph, *model.functions.values()):
        _check_edges(holder)
    clone = model.clone()
    _own_tensors(clone)
    return clone


def read_graphsurgeon(graph: Any) -> ir.Model:
    """An onnx-graphsurgeon Graph, by way of its own export to ONNX."""
    import onnx_graphsurgeon as gs

    try:
        proto = gs.export_onnx(graph, do_type_check=False)
    except Exception as error:
        raise CaptureError(f"onnx-graphsurgeon cannot export the graph: {error}") from error
    for entry in proto.opset_import:  # where a model said "ai.onnx", graphsurgeon adds "": 1
        if entry.domain == "":
            entry.version = graph.opset
    return read_proto(proto)


def _own_tensors(model: ir.Model) -> None:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is None:
                raise CaptureError("an initializer without data", at=value)
            value.const_value = owned(value.const_value, value.name)


def _open_external(model: ir.Model, folder: Path, mapped: Mapped | None) -> None:
    """Give every external tensor its folder, or the map of the model's own file."""

    def opened(tensor: Any) -> Any:
        if isinstance(tensor, ir.ExternalTensor):
            if mapped is not None and tensor.location == mapped.token:
                return mapped.array(tensor)
            tensor.base_dir = folder
        return tensor

    for holder in (model.graph, *model.functions.values()):
        for graph in nested(holder):
            for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
                value.const_value = opened(value.const_value)
            for node in graph:
                for name, attribute in list(node.attributes.items()):
                    if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                        node.attributes[name] = ir.AttrTensor(name, opened(attribute.value))
                    elif attribute.type == ir.AttributeType.TENSORS and not attribute.is_ref():
                        tensors = [opened(tensor) for tensor in attribute.value]
                        node.attributes[name] = ir.AttrTensors(name, tensors)


def _check_edges(holder: ir.Graph | ir.Function) -> None:
    """In an onnx_ir model, every value that is read must come from somewhere in the model."""
    known: set[int] = set()
    for graph in nested(holder):
        known.update(id(value) for value in graph.inputs)
        if isinstance(graph, ir.Graph):
            known.update(id(value) for value in graph.initializers.values())
        known.update(id(value) for node in graph for value in node.outputs)
    for graph in nested(holder):
        for node in graph:
            for value in node.inputs:
                if value is not None and id(value) not in known:
                    raise CaptureError(f"input '{value.name}' is defined nowhere", at=node)
        for value in graph.outputs:
            if id(value) not in known:
                raise CaptureError(f"output '{value.name}' is computed nowhere")
