"""onnx's checker and shape inference on a model without its weights.

The C++ side takes one serialised proto, so initializers above a kilobyte are shown to it as typed
inputs: shapes come out the same, and neither a 2 GB limit nor a copy of the weights is met.
"""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from ir.capture.names import nested
from ir.errors import CaptureError

# Larger constants never hold shapes, axes or other sizes that inference would need to read.
_LARGEST_SHOWN = 1024

logger = logging.getLogger(__name__)


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """`model` as a proto in which large initializers, of bodies too, are inputs of its main graph.

    Names must be unique over the main graph and its bodies. The model is as before afterwards.
    """
    hidden: list[tuple[ir.Graph, ir.Value]] = []
    for graph in nested(model.graph):
        assert isinstance(graph, ir.Graph)
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes > _LARGEST_SHOWN:
                value.type, value.shape = (
                    ir.TensorType(tensor.dtype),
                    ir.Shape(tensor.shape.numpy()),
                )
                hidden.append((graph, value))
    count = len(model.graph.inputs)
    for graph, value in hidden:
        del graph.initializers[value.name or ""]
        model.graph.inputs.append(value)
    try:
        return ir.to_proto(model)
    except (ir.serde.SerdeError, UnicodeError, TypeError, ValueError) as error:
        raise CaptureError(
            f"the model is malformed: {_brief(_root(error))}", hint="fetch or export it again"
        ) from error
    finally:
        while len(model.graph.inputs) > count:
            model.graph.inputs.pop()  # `del inputs[count:]` would leave them marked as inputs
        for graph, value in hidden:
            graph.register_initializer(value)


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
    """Raise CaptureError unless operators, attributes, types and shapes agree; adopt the shapes.

    Shapes that the file declares for computed values may be wrong, as ONNX Runtime also allows:
    where they contradict what the operators say, the operators win. Element types may not.
    """
    if any(value.type is None for value in model.graph.outputs):
        infer_quietly(model)
    proto = skeleton(model)
    for graph in model.graphs():
        _check_splits(graph)
    try:
        _check_structure(proto)
        try:
            inferred = _infer(proto)
        except onnx.shape_inference.InferenceError:
            _forget_shapes(proto.graph)
            inferred = _infer(proto)
            _drop_shapes(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CaptureError(
            f"the model contradicts itself: {_brief(str(error))}",
            hint="check it with onnx.checker.check_model(path, full_check=True)",
        ) from error
    adopt(model, inferred)


def _check_structure(proto: onnx.ModelProto) -> None:
    """onnx.checker, which demands a rank of the main graph's inputs and outputs: not so runtimes.

    A scalar's (empty) shape stands in for an unknown rank; the checker compares no shapes.
    """
    unranked = [
        info.type.tensor_type
        for info in (*proto.graph.input, *proto.graph.output)
        if info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape")
    ]
    for tensor in unranked:
        tensor.shape.SetInParent()
    onnx.checker.check_model(proto)
    for tensor in unranked:
        tensor.ClearField("shape")


def _check_splits(graph: ir.Graph) -> None:
    """onnx's shape inference ends the whole process at a Split that writes more than it says."""
    for node in graph:
        told = node.attributes.get("num_outputs")
        if node.op_type != "Split" or node.domain or told is None or told.is_ref():
            continue
        if told.value != len(node.outputs):
            raise CaptureError(
                f"num_outputs is {told.value}, but it writes {len(node.outputs)}",
                at=node,
                hint="export the model again",
            )


def _infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True
    )


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Remove the declared shapes of computed tensors; their element types stay."""
    for info in (*graph.value_info, *graph.output):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _forget_shapes(body)


def _drop_shapes(model: ir.Model) -> None:
    for graph in nested(model.graph):
        for node in graph:
            for value in node.outputs:
                value.shape = None


def _root(error: BaseException) -> str:
    """What onnx_ir, which reports at every level, stumbled over first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _brief(text: str, limit: int = 400) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + " ..."
