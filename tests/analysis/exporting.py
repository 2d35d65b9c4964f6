"""Graphs as real exporters write them, and the proof that an idiom is what it claims to be."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ir.analysis import shapes
from ir.analysis.idioms import Idiom

torch.set_num_threads(1)


def script_export(module, args, opset=13, **options) -> onnx_ir.Model:
    """What the TorchScript exporter writes, with shapes inferred."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), args, stream, opset_version=opset, dynamo=False, **options)
    return shapes.infer(onnx_ir.from_proto(onnx.load_from_string(stream.getvalue())))


def dynamo_export(module, args, opset=18, **options) -> onnx_ir.Model:
    """What the torch.export based exporter writes, with shapes inferred."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), args, opset_version=opset, dynamo=True, verbose=False, **options
        )
    assert program is not None
    return shapes.infer(onnx_ir.from_proto(program.model_proto))


def values_of(graph: onnx_ir.Model, feeds: dict, wanted: list[onnx_ir.Value]) -> list[np.ndarray]:
    """What these values of the main graph hold, run by ONNX Runtime without optimisation."""
    proto = onnx_ir.to_proto(graph)
    names = [v.name for v in wanted]
    kept = {o.name for o in proto.graph.output}
    known = {i.name for i in proto.graph.input} | {t.name for t in proto.graph.initializer}
    for name in dict.fromkeys(names):
        if name not in kept and name not in known:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    computed = [n for n in dict.fromkeys(names) if n not in known]
    results = dict(zip(computed, session.run(computed, feeds), strict=True))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    return [results.get(n, constants.get(n, feeds.get(n))) for n in names]  # pyright: ignore


def standard_op(idiom: Idiom, arrays: list[np.ndarray | None], outputs: int) -> list[np.ndarray]:
    """What the idiom's one standard op computes from these inputs at opset 25."""
    prepared = [
        None if a is None else _prepare(a, idiom.prepare.get(i, ())) for i, a in enumerate(arrays)
    ]
    prepared = _with_gain(idiom, prepared)
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(prepared)]
    node = helper.make_node(idiom.kind, names, ["o"], **idiom.attributes)
    proto = helper.make_model(
        helper.make_graph(
            [node],
            "one",
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                for n, a in zip(names, prepared, strict=True)
                if a is not None
            ],
            [onnx.ValueInfoProto(name="o")],
        ),
        opset_imports=[helper.make_opsetid("", 25)],
        ir_version=13,
    )
    feeds = {n: a for n, a in zip(names, prepared, strict=True) if a is not None}
    return ReferenceEvaluator(proto).run(None, feeds)  # pyright: ignore[reportReturnType]


def _with_gain(idiom: Idiom, arrays: list) -> list:
    if idiom.kind in ("LayerNormalization", "RMSNormalization") and arrays[1] is None:
        x = arrays[0]
        arrays[1] = np.ones(x.shape[idiom.attributes["axis"] :], x.dtype)
    while arrays and arrays[-1] is None:
        arrays.pop()
    return arrays


def _prepare(array: np.ndarray, steps) -> np.ndarray:
    for op_type, argument in steps:
        if op_type == "Transpose":
            array = array.transpose(argument)
        elif op_type == "Reshape":
            array = array.reshape(argument)
        elif op_type == "Where":
            array = np.where(array, *(np.float32(n) for n in argument))
        elif op_type == "Table":
            array = _table(array, argument)
        else:
            raise AssertionError(op_type)
    return array


def _table(array: np.ndarray, keep: str) -> np.ndarray:
    """[.., tokens, channels] -> [batch, tokens, channels / 2] without the repeated angles."""
    array = array.reshape(-1, *array.shape[-2:])
    if keep == "half":
        return array[..., : array.shape[-1] // 2]
    return array[..., ::2] if keep == "even" else array


def assert_same(graph: onnx_ir.Model, idiom: Idiom, feeds: dict, tolerance=2e-5) -> None:
    """The idiom's op, run alone, gives what the nodes of the graph give."""
    present = [v for v in idiom.inputs if v is not None]
    arrays = values_of(graph, feeds, [*present, *idiom.outputs])
    given = iter(arrays)
    inputs = [None if v is None else next(given) for v in idiom.inputs]
    want = list(given)
    got = standard_op(idiom, inputs, len(want))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.abs(b).max() > 1e-2
        np.testing.assert_allclose(a, b, rtol=tolerance * 10, atol=tolerance * np.abs(b).max())
