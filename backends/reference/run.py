"""Evaluate a graph with onnx.reference, in its own types or in double precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator

from backends.reference.ops import CORRECTED
from ir.errors import BackendError, DataError, PtqcError

# integer attributes that name an element type, of any op
_TYPE_ATTRS = {"to", "dtype", "output_dtype", "precision", "softmax_precision"}


def run(
    graph: ir.Model,
    feeds: Mapping[str, Any],
    *,
    dtype: Any = None,
    outputs: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compute `outputs` (default: the graph's; any value's name will do): `{name: array}`.

    `dtype=np.float64` takes the place of float32 everywhere (weights, feeds, casts, the inner
    precision of norms), so that float graphs are evaluated in double precision.

    Raises BackendError for a node with no meaning, DataError for a missing or unknown feed.
    """
    if dtype is not None and np.dtype(dtype) not in (np.dtype("f4"), np.dtype("f8")):
        raise BackendError(f"dtype {dtype} cannot take float32's place", hint="use np.float64")
    wide = dtype is not None and np.dtype(dtype) == np.float64
    wanted = list(outputs) if outputs is not None else [v.name or "" for v in graph.graph.outputs]
    values = {**_initializers(graph), **_checked(graph, feeds)}
    proto = _proto(graph)
    if wide:
        values = {name: _widened(value) for name, value in values.items()}
        _widen_graph(proto.graph)
    try:
        evaluator = ReferenceEvaluator(proto, new_ops=CORRECTED)
        with np.errstate(all="ignore"):
            results = evaluator.run(wanted, values)
    except PtqcError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise BackendError(
            f"{type(error).__name__} in the reference evaluator: {text}",
            hint="the message names the node or the value",
        ) from error
    return dict(zip(wanted, results, strict=True))


def _initializers(graph: ir.Model) -> dict[str, Any]:
    arrays = {}
    for name, value in graph.graph.initializers.items():
        if value.const_value is None:
            raise BackendError("an initializer has no data", at=value)
        arrays[name] = value.const_value.numpy()
    return arrays


def _checked(graph: ir.Model, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The feeds as arrays; every input without an initializer needs one."""
    known = {v.name for v in graph.graph.inputs}
    for name in feeds:
        if name not in known and name not in graph.graph.initializers:
            raise DataError(f"{name!r} is not an input", hint=f"inputs: {sorted(map(str, known))}")
    for name in known - feeds.keys() - graph.graph.initializers.keys():
        raise DataError(f"no feed for input {name!r}", hint="give every input")
    return {k: v if isinstance(v, list) or v is None else np.asarray(v) for k, v in feeds.items()}


def _proto(graph: ir.Model) -> onnx.ModelProto:
    """The model with local functions inlined and initializers left out (they are fed)."""
    proto = ir.to_proto(graph)
    assert isinstance(proto, onnx.ModelProto)
    del proto.graph.initializer[:]
    if proto.functions:
        proto = inliner.inline_local_functions(proto, convert_version=True)
    return proto


def _widened(value: Any) -> Any:
    if isinstance(value, list):
        return [_widened(item) for item in value]
    is_single = isinstance(value, np.ndarray) and value.dtype == np.float32
    return value.astype(np.float64) if is_single else value


def _widen_graph(graph: onnx.GraphProto) -> None:
    """Every mention of float32 in `graph` and its bodies becomes double."""
    for body in _bodies(graph):
        del body.value_info[:]
        for info in (*body.input, *body.output):
            if info.type.tensor_type.elem_type == TensorProto.FLOAT:
                info.type.tensor_type.elem_type = TensorProto.DOUBLE
        for tensor in body.initializer:
            _widen_tensor(tensor)
        for node in body.node:
            _widen_node(node)


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attr in node.attribute:
            for body in (*([attr.g] if attr.HasField("g") else []), *attr.graphs):
                yield from _bodies(body)


def _widen_node(node: onnx.NodeProto) -> None:
    for attr in node.attribute:
        if attr.name in _TYPE_ATTRS and attr.i == TensorProto.FLOAT:
            attr.i = TensorProto.DOUBLE
        if attr.HasField("t"):
            _widen_tensor(attr.t)
        if node.op_type == "Constant" and attr.name in ("value_float", "value_floats"):
            numbers = attr.f if attr.name == "value_float" else list(attr.floats)
            attr.CopyFrom(
                onnx.helper.make_attribute(
                    "value", numpy_helper.from_array(np.asarray(numbers, np.float64))
                )
            )
    present = {attr.name for attr in node.attribute}
    if node.op_type == "ConstantOfShape" and "value" not in present:
        zero = numpy_helper.from_array(np.zeros(1))
        node.attribute.append(onnx.helper.make_attribute("value", zero))


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
