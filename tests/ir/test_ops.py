"""Our ops run in plain ONNX Runtime and mean what `ir.formats` says, for every shape of scale."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest

from ir import ops
from ir.errors import PipelineError
from ir.formats import integer
from ir.graph import IR_VERSION, OPSET, Names
from ir.qtype import QType

TEXTS = [
    "i4@128x1*f16", "i4@128x1*f16+u4", "i8@1x0*f32", "i8@0*f32+u8", "e2m1@32x1*e8m0",
    "e2m1@16x1*e4m3*f32", "log2u4@0x1*f32", "t2@128x1*f16", "b1@0x1*f16", "vq8.65536@8x1*f16",
    "nf4@64x1*i8*f32",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_qtype_reads_back_as_it_is_written(text):
    assert str(QType.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "i8", "i8@x*f32", "i8@0", "i8@0*f32+", "i8@-1*f32", "i8@0*f32 x"]
)
def test_what_is_not_a_qtype_is_refused(text):
    with pytest.raises(PipelineError, match="is not a QType"):
        QType.parse(text)


def run_op(op, qtype, arrays):
    """One node of `op` as a model, run by ONNX Runtime from the function's body."""
    inputs = [
        onnx_ir.val(f"in{i}", onnx_ir.DataType.from_numpy(a.dtype), a.shape)
        for i, a in enumerate(arrays)
    ]
    graph = onnx_ir.Graph(inputs, [], nodes=[], opset_imports={"": OPSET}, name="g")
    model = onnx_ir.Model(graph, ir_version=IR_VERSION)
    node = ops.make(op, qtype, inputs, Names(model), "t")
    graph.append(node)
    graph.outputs.extend(node.outputs)
    ops.define(model)
    session = onnxruntime.InferenceSession(
        onnx_ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {v.name: a for v, a in zip(inputs, arrays, strict=True)})


@pytest.mark.parametrize(
    "text",
    ["i8@0*f32", "u8@0*f32+u8", "i8@0x1*f32", "u8@1x0*f32+u8", "i8@4x1*f32", "i16@0*f32",
     "i8@1x1*f32", "u8@1x1*f32+u8", "u16@0*f32+u16"],
)  # fmt: skip
def test_bodies_agree_with_the_pure_functions(text):
    qtype = QType.parse(text)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6)).astype(np.float32) * 3
    shape = qtype.scale_shape(x.shape)
    low, high = -rng.uniform(0.5, 5, shape), rng.uniform(0.5, 5, shape)
    scale, zero = integer.scale_and_zero(low, high, qtype)
    parts = [np.asarray(scale)] + ([] if zero is None else [np.asarray(zero)])
    codes = integer.encode(x, scale, zero, qtype)
    assert len(np.unique(codes)) > 20
    (run,) = run_op("Encode", qtype, [x, *parts])
    np.testing.assert_array_equal(run, codes)
    (back,) = run_op("Decode", qtype, [codes, *parts])
    np.testing.assert_array_equal(back, integer.decode(codes, scale, zero, qtype))


@pytest.mark.parametrize(
    "text", ["i8@0*f32", "u8@0*f32+u8", "i8@1x0*f32", "u8@1x0*f32+u8", "i8@0*f32+i8"]
)
def test_dynamic_scales_cover_the_tensor(text):
    qtype = QType.parse(text)
    x = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
    axes = None if qtype.per_tensor else 1
    keep = not qtype.per_tensor
    expected = integer.scale_and_zero(
        x.min(axis=axes, keepdims=keep), x.max(axis=axes, keepdims=keep), qtype
    )
    found = run_op("Scale", qtype, [x])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    if qtype.zero:
        np.testing.assert_array_equal(found[1], expected[1])


def test_functions_follow_use():
    qtype = QType.parse("i8@0*f32")
    x, s = (
        onnx_ir.val("x", onnx_ir.DataType.FLOAT, (2,)),
        onnx_ir.val("s", onnx_ir.DataType.FLOAT, ()),
    )
    graph = onnx_ir.Graph([x, s], [], nodes=[], opset_imports={"": OPSET})
    model = onnx_ir.Model(graph, ir_version=IR_VERSION)
    node = ops.make("Encode", qtype, [x, s], Names(model), "x")
    graph.append(node)
    ops.define(model)
    assert list(model.functions) == [("quant", "Encode", "i8@0*f32")]
    assert ops.codes_qtype(node.outputs[0]) == qtype
    graph.remove(node)
    ops.define(model)
    assert not model.functions


@pytest.mark.parametrize("text", ["i9@0*f32", "i8@2x2*f32", "t2@32x1*f32", "i8@0*f32*f32"])
def test_a_format_without_a_body_is_refused(text):
    with pytest.raises(PipelineError, match=r"no body|no ONNX integer type|not known|no meaning"):
        ops.function("Decode", text)
