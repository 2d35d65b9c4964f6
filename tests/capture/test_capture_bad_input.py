"""What cannot be trusted is refused with one clear line, before anything large is touched."""

import os
import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from ir.capture import capture
from ir.errors import CaptureError
from tests.capture.refusing import good, graph_of, refuse


def test_the_good_model_is_accepted():
    assert [node.op_type for node in capture(good()).graph] == ["MatMul"]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "file is empty"),
    (good().SerializeToString()[:-7], "cut short"),
    (b"<html>404 not found</html>" * 9, "not an ONNX model"),
    (b"PK\x03\x04" + bytes(50), "not an ONNX model|no graph"),
    (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
])  # fmt: skip
def test_files_that_are_no_model(tmp_path, content, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert str(path) in str(refuse(path, message)) or "m.onnx" in str(refuse(path, message))


def test_paths_that_are_no_file(tmp_path):
    refuse(tmp_path / "absent.onnx", "No such file")
    refuse(str(tmp_path), "not a file")
    os.mkfifo(tmp_path / "pipe.onnx")
    refuse(tmp_path / "pipe.onnx", "not a file")


def test_a_file_of_more_than_2_gb_is_refused_unread(tmp_path):
    path = tmp_path / "m.onnx"
    with open(path, "wb") as file:
        file.truncate(2**31 + 5)
    refuse(path, "larger than 2 GB")


def test_every_truncation_is_refused_or_sound(tmp_path):
    content = good().SerializeToString()
    path = tmp_path / "m.onnx"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        try:
            model = capture(path)
        except CaptureError:
            continue
        assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize(("nodes", "message"), [
    (["a = Add(x, b)", "b = Relu(a)", "y = Relu(b)"], "cycle"),
    (["y = Add(x, y)"], "cycle"),
    (["y = Add(x, nowhere)"], "'nowhere' is defined nowhere"),
    (["y = Relu(x)", "y = Abs(x)"], "'y' is defined twice"),
    (["x = Relu(x)", "y = Abs(x)"], "'x' is defined twice"),
    (["z = Relu(x)"], "output 'y' .* computed nowhere"),
    (["s = Shape(x)", "y = Add(x, s)"], "contradicts itself"),
    (["y = Cast<to=7>(x)"], "contradicts itself"),
    (["y = MatMul(x, x, x)"], "contradicts itself"),
    (["y = Softmax<nonsense=1>(x)"], "contradicts itself"),
    (["y = Conv(x, x)"], "contradicts itself"),
    (["c = Constant<value_int=1, value_float=1.0>()", "y = Relu(x)"], "exactly one attribute"),
    (["y = Concat(x, x)"], "contradicts itself"),
])  # fmt: skip
def test_graphs_that_contradict_themselves(nodes, message):
    refuse(parser.parse_model(graph_of(*nodes)), message)


def test_wrong_declared_shapes_are_corrected_not_refused():
    model = capture(parser.parse_model(graph_of("y = Relu(x)", outputs="float[7,7] y")))
    assert model.graph.outputs[0].shape == ir.Shape([2])


def test_nodes_in_any_order_are_sorted():
    model = capture(parser.parse_model(graph_of("y = Relu(a)", "a = Abs(x)")))
    assert [node.op_type for node in model.graph] == ["Abs", "Relu"]


@pytest.mark.parametrize(("dims", "change", "message"), [
    ([10**15], {}, r"needs 4000000000000000 bytes, the data has 48"),
    ([2**40, 2**40, 2**40], {}, "the data has 48"),
    ([-1, 3], {}, "negative dimension"),
    ([4, 4], {}, "needs 64 bytes, the data has 48"),
    ([4, 3], {"data_type": 77}, "unknown element type 77"),
    ([4, 3], {"data_type": 0}, "unknown element type 0"),
    ([4, 3], {"name": ""}, "nameless"),
])  # fmt: skip
def test_tensors_that_claim_what_they_do_not_hold(dims, change, message):
    model = good()
    tensor = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    for field, value in change.items():
        setattr(tensor, field, value)
    model.graph.initializer[0].CopyFrom(tensor)
    refuse(model, message)


@pytest.mark.parametrize("data_type", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT4])
def test_typed_data_is_counted(data_type):
    tensor = helper.make_tensor("w", data_type, [3], [1, 2, 3])
    tensor.dims[0] = 10**12
    model = parser.parse_model(graph_of("y = Relu(x)"))
    model.graph.initializer.append(tensor)
    refuse(model, "numbers, the data has")


def test_constants_inside_nodes_are_checked_too():
    model = parser.parse_model(graph_of("c = Constant<value=float[1] {1.0}>()", "y = Add(x, c)"))
    model.graph.node[0].attribute[0].t.dims[0] = 10**15
    refuse(model, "needs 1000000000000000 numbers.*constant of Constant")


def test_sparse_tensors_are_refused():
    model = good()
    model.graph.sparse_initializer.add()
    refuse(model, "sparse")


@pytest.mark.parametrize("dim", [-2, -(2**62)])
def test_negative_input_dimensions(dim):
    model = good()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = dim
    refuse(model, f"dimension 0 of an input is {dim}")


def test_deep_nesting_is_refused_by_the_parser(tmp_path):
    model = good()
    graph = model.graph
    for _ in range(60):
        attribute = graph.node.add(op_type="If").attribute.add(name="then_branch")
        graph = attribute.g
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    refuse(path, "not an ONNX model, or cut short")


def test_onnx_ir_models_with_loose_ends():
    loose = ir.Value(name="loose")
    node = ir.node("Relu", [loose])
    graph = ir.Graph([], [node.outputs[0]], nodes=[node], opset_imports={"": 17}, name="g")
    refuse(ir.Model(graph, ir_version=8), "'loose' is defined nowhere")


def test_other_things_are_named():
    refuse(42, "cannot read a model from int")
    refuse(good(), "example and dynamic are for torch", example=1)


def test_mutated_models_never_crash(tmp_path):
    """Random damage: a clean CaptureError or a model that still is one."""
    content = parser.parse_model(graph_of(
        "c = Constant<value=int64[1] {-1}>()", "r = Reshape(x, c)", "s = ReduceSum<keepdims=1>(r)",
        "t = If(b)<then_branch = t () => (float[1] u) { u = Relu(s) },"
        " else_branch = e () => (float[1] v) { v = Abs(s) }>", "y = Add(x, t)",
        inputs="float[2] x, bool b",
    )).SerializeToString()  # fmt: skip
    rng = random.Random(0)
    accepted = 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "m.onnx").write_bytes(damaged)
        try:
            accepted += isinstance(capture(tmp_path / "m.onnx"), ir.Model)
        except CaptureError:
            continue
    assert 0 < accepted < 400
