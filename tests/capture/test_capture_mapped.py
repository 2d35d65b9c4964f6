"""Large weights of an .onnx file stay in it: what comes out is what the full parser reads."""

import random

import numpy as np
import onnx
import onnx_ir as ir
import psutil
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper, parser

from ir.capture import capture, mapped, save
from ir.errors import CaptureError
from tests.capture.refusing import good

MIB = 1 << 20


def with_weight(array: np.ndarray) -> onnx.ModelProto:
    """y = Identity(w), with w in raw bytes, after a name of odd length."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name="w", data_type=kind, dims=array.shape, raw_data=array.tobytes())
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    output = helper.make_tensor_value_info("y", kind, array.shape)
    graph = helper.make_graph(nodes, "odd", [], [output], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def captured(model: onnx.ModelProto, path) -> ir.Model:
    path.write_bytes(model.SerializeToString())
    return capture(path)


def in_file(tensor: ir.TensorProtocol) -> bool:
    array = tensor.numpy()
    return not array.flags.owndata and not array.flags.writeable


@pytest.mark.parametrize("kind", [
    ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16,
    ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT64, ir.DataType.FLOAT8E4M3FN,
    ir.DataType.COMPLEX64,
])  # fmt: skip
def test_numbers_of_every_byte_wide_type(tmp_path, kind):
    array = (np.arange(90_000) % 240).reshape(300, 300).astype(kind.numpy())
    model = captured(with_weight(array), tmp_path / "m.onnx")
    tensor = model.graph.initializers["w"].const_value
    assert tensor.dtype == kind
    np.testing.assert_array_equal(tensor.numpy().view(np.uint8), array.view(np.uint8))
    assert in_file(tensor)


def test_reading_costs_no_memory(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(with_weight(np.zeros((64, MIB // 4), np.float32)).SerializeToString())
    capture(path)
    before = psutil.Process().memory_info().rss
    model = capture(path)
    assert psutil.Process().memory_info().rss - before < 8 * MIB
    assert model.graph.initializers["w"].const_value.nbytes == 64 * MIB


def test_a_captured_model_may_be_saved_onto_its_own_file(tmp_path):
    array = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    path = tmp_path / "m.onnx"
    model = captured(with_weight(array), path)
    save(model, path)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), array)
    save(captured(with_weight(array * 2), path), path)
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), array)


NESTED = parser.parse_model("""
<ir_version: 10, opset_import: ["": 21, "own": 1]>
g (bool c, float[4] x) => (float[4] y, float[4] z) {
  y = If (c) <then_branch = t () => (float[4] a) { a = Add(x, x) },
              else_branch = e () => (float[4] b) { b = Constant<value = float[4] {1.,2.,3.,4.}>() }>
  z = own.f(x)
}
<domain: "own", opset_import: ["": 21]>
f (x) => (y) { k = Constant<value = float[4] {5.,6.,7.,8.}>() y = Mul(x, k) }
""")


def raw(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every constant as raw bytes."""
    for tensor in _tensors(model):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return model


def _tensors(model: onnx.ModelProto):
    yield from model.graph.initializer
    inner = [node for outer in model.graph.node for a in outer.attribute for node in a.g.node]
    called = [node for function in model.functions for node in function.node]
    for node in [*model.graph.node, *inner, *called]:
        yield from (a.t for a in node.attribute if a.HasField("t"))


def test_constants_of_bodies_and_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "SMALLEST", 16)
    model = captured(raw(NESTED), tmp_path / "m.onnx")
    body = model.graph.node(0).attributes["else_branch"].as_graph()
    function = next(iter(model.functions.values()))
    in_body = next(iter(body.initializers.values())).const_value
    in_function = next(n for n in function if n.op_type == "Constant").attributes["value"].value
    assert in_file(in_body)
    assert in_file(in_function)
    np.testing.assert_array_equal(in_body.numpy(), [1, 2, 3, 4])
    np.testing.assert_array_equal(in_function.numpy(), [5, 6, 7, 8])


def outcome(content: bytes, path, monkeypatch, smallest: int):
    """The text of the error, or names and bytes of all weights."""
    monkeypatch.setattr(mapped, "SMALLEST", smallest)
    path.write_bytes(content)
    try:
        model = capture(path)
    except CaptureError as error:
        return error.cause
    found = {name: v.const_value.tobytes() for name, v in model.graph.initializers.items()}
    return found, [node.op_type for node in model.graph]


@pytest.mark.parametrize("model", [raw(good()), raw(NESTED)], ids=["plain", "nested"])
def test_damaged_files_are_judged_as_by_the_full_parser(tmp_path, monkeypatch, model):
    content, path = model.SerializeToString(), tmp_path / "m.onnx"
    draw = random.Random(7)
    spoilt = [content[:size] for size in range(1, len(content), 5)]
    for _ in range(150):
        changed = bytearray(content)
        for _ in range(draw.choice([1, 1, 2])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        spoilt.append(bytes(changed))
    for one in spoilt:
        whole = outcome(one, path, monkeypatch, 1 << 30)
        cut = outcome(one, path, monkeypatch, 8)
        assert isinstance(cut, str) == isinstance(whole, str), (whole, cut)
        assert cut == whole or isinstance(cut, str)  # messages may name other things first


def test_what_merges_two_messages_is_left_to_the_parser(tmp_path, monkeypatch):
    model = raw(good())
    tail = onnx.ModelProto()
    tail.graph.doc_string = "more"
    content = model.SerializeToString() + tail.SerializeToString()
    path = tmp_path / "m.onnx"
    assert outcome(content, path, monkeypatch, 8) == outcome(content, path, monkeypatch, 1 << 30)


def test_a_place_written_by_the_file_itself_is_external_data(tmp_path):
    model = with_weight(np.zeros((300, 300), np.float32))
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    with pytest.raises(CaptureError, match="leaves the model's folder"):
        captured(model, tmp_path / "m.onnx")


def test_varints_round_trip_and_overlong_ones_are_refused():
    for number in (0, 1, 127, 128, 300, 2**31, 2**63):
        content = mapped.varint(number)
        assert mapped._varint(content, 0, len(content)) == (number, len(content))
    with pytest.raises(mapped.Odd):
        mapped._varint(b"\xff" * 12, 0, 12)
    with pytest.raises(DecodeError):
        onnx.ModelProto().ParseFromString(b"\x08" + b"\xff" * 12)
