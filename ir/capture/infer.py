"""onnx's checker and shape inference on a model without its weights.

The C++ side takes one serialised proto, so initializers above a kilobyte are shown to it as typed
inputs: shapes come out the same, and neither a 2 GB limit nor a copy of the weights is met.
"""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from ir.errors import CaptureError

# Larger constants never hold shapes, axes or other sizes that inference would need to read.
_LARGEST_SHOWN = 1024

logger = logging.getLogger(__name__)


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """`model` as a proto whose large initializers are inputs of the same name and type."""
    copy = model.clone()
    for graph in copy.graphs():
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or tensor.nbytes <= _LARGEST_SHOWN:
                continue
            value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape)
            if graph is copy.graph:
                del graph.initializers[name]
                if value not in graph.inputs:
                    graph.inputs.append(value)
    return ir.to_proto(copy)


def infer_quietly(model: ir.Model) -> None:
    """Write inferred types and shapes on the values; where inference fails, leave them be."""
    try:
        proto = onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True)
    except Exception as error:
        logger.debug("no shapes before the opset change: %s", error)
        return
    adopt(model, proto)


def adopt(model: ir.Model, inferred: onnx.ModelProto) -> None:
    """Write types and shapes of `inferred` on the values of `model` that lack them."""
    known: dict[str, onnx.TypeProto] = {}
    _collect(inferred.graph, known)
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                proto = known.get(value.name or "")
                if proto is not None:
                    _adopt_one(value, proto)


def _adopt_one(value: ir.Value, proto: onnx.TypeProto) -> None:
    if value.type is None:
        value.type = ir.serde.deserialize_type_proto_for_type(proto)
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    if shape is not None and (value.shape is None or value.shape.rank() == shape.rank()):
        value.shape = shape


def _collect(graph: onnx.GraphProto, known: dict[str, onnx.TypeProto]) -> None:
    for info in (*graph.value_info, *graph.output):
        known[info.name] = info.type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _collect(attribute.g, known)
            for body in attribute.graphs:
                _collect(body, known)


def check(model: ir.Model) -> None:
    """Raise CaptureError unless operators, attributes, types and shapes agree; adopt the shapes."""
    proto = skeleton(model)
    try:
        onnx.checker.check_model(proto)
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=True
        )
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CaptureError(
            f"the model contradicts itself: {_first_lines(str(error))}",
            hint="check it with onnx.checker.check_model(path, full_check=True)",
        ) from error
    adopt(model, inferred)


def _first_lines(text: str, limit: int = 400) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + " ..."
