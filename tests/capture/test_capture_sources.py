"""Every kind of source gives the same graph, in normal form, and is left as it was."""

import resource
import subprocess
import sys

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from ir.capture import capture, save, to_proto
from tests.capture.running import assert_same, run

TEXT = """
    <ir_version: 3, opset_import: ["ai.onnx": 11]>
    g (float[-1,4] x, float[4,3] w, bool c) => (float[?,3] y)
      <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}>
    {
      k = Constant<value = float {2.0}>()
      h = MatMul(x, w)
      z = If(c)<then_branch = t () => (float[?,3] a) { a = Mul(h, k) },
                else_branch = e () => (float[?,3] a) { k = Constant<value = float {3.0}>()
                                                       a = Mul(h, k) }>
      y = Relu(z)
    }
"""
FEEDS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4) - 3, "c": np.array(False)}


def proto() -> onnx.ModelProto:
    model = parser.parse_model(TEXT)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    return model


@pytest.fixture(params=["path", "str", "proto", "onnx_ir", "graphsurgeon"])
def source(request, tmp_path):
    model = proto()
    match request.param:
        case "proto":
            return model
        case "onnx_ir":
            return ir.from_proto(model)
        case "graphsurgeon":
            return gs.import_onnx(model)
    onnx.save(model, tmp_path / "m.onnx")
    return tmp_path / "m.onnx" if request.param == "path" else str(tmp_path / "m.onnx")


def fingerprint(source) -> bytes:
    if isinstance(source, onnx.ModelProto):
        return source.SerializeToString(deterministic=True)
    if isinstance(source, ir.Model):
        return ir.to_proto(source).SerializeToString(deterministic=True)
    if isinstance(source, gs.Graph):
        return gs.export_onnx(source).SerializeToString(deterministic=True)
    return open(source, "rb").read()


def test_normal_form_whatever_the_source(source):
    before = fingerprint(source)
    model = capture(source, name="mine")
    assert fingerprint(source) == before
    assert model.graph.name == "mine"
    assert (model.ir_version, dict(model.opset_imports)) == (13, {"": 25})
    assert [value.name for value in model.graph.inputs] == ["x", "c"]
    assert isinstance(model.graph.inputs[0].shape[0], ir.SymbolicDim)
    assert model.graph.inputs[0].shape[0].value
    graphs = [model.graph, *model.graph.subgraphs()]
    assert len(graphs) == 3
    nodes = [node for graph in graphs for node in graph]
    assert all(node.op_type != "Constant" for node in nodes)
    assert len({node.name for node in nodes}) == len(nodes)
    names = [value.name for node in nodes for value in node.outputs]
    names += [name for graph in graphs for name in graph.initializers]
    assert len(set(names)) == len(names)
    assert model.graph.outputs[0].name == "y"
    assert_same(run(model, FEEDS), [np.maximum(FEEDS["x"] @ weights() * 3, 0)])


def weights() -> np.ndarray:
    return np.arange(1, 13, dtype=np.float32).reshape(4, 3)


def test_renaming_inside_the_result_does_not_reach_the_source():
    model = proto()
    before = model.SerializeToString(deterministic=True)
    for source in (model, ir.from_proto(model)):
        result = capture(source)
        result.graph.initializers["w"].name = "renamed"
        to_proto(result)
        assert model.SerializeToString(deterministic=True) == before


def test_capture_of_a_captured_model_changes_nothing():
    once = capture(proto())
    assert to_proto(capture(once)) == to_proto(once)


@pytest.mark.parametrize("dim", [-1, 0, "?", "", None])
def test_unknown_dimensions_become_symbols_of_their_own(dim):
    graph = helper.make_graph(
        [helper.make_node("Concat", ["a", "b"], ["y"], axis=0)],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [dim, 2]) for n in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [dim, 2])],
    )
    model = capture(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert [str(value.shape[0]) for value in model.graph.inputs] == ["a_d0", "b_d0"]
    rows = np.ones((3, 2), np.float32)
    assert_same(run(model, {"a": rows, "b": rows[:1]}), [np.ones((4, 2), np.float32)])


def test_named_dimensions_keep_their_names():
    model = capture(parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[batch,s] x) => (float[batch,s] y)'
        "{ a = Relu(x) y = Abs(a) }"
    ))  # fmt: skip
    assert [str(dim) for dim in model.graph.inputs[0].shape] == ["batch", "s"]
    inner = model.graph.node(0).outputs[0]
    assert [str(dim) for dim in inner.shape] == ["batch", "s"]


def test_quantized_models_are_read_as_they_are():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[2,4] x) => (float[2,4] y, uint8 q) {
          s = Constant<value = float {0.5}>() z = Constant<value = uint8 {3}>()
          a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z)
          q, qs, qz = DynamicQuantizeLinear(x)
        }
    """)
    found = capture(model)
    kinds = ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"]
    assert [node.op_type for node in found.graph] == kinds
    assert_same(run(found, {"x": FEEDS["x"]}), run(model, {"x": FEEDS["x"]}))


def test_a_constant_may_be_an_output():
    model = capture(parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y, float[1] k)'
        "{ k = Constant<value = float[1] {2.0}>() y = Add(x, k) }"
    ))  # fmt: skip
    assert list(model.graph.initializers) == ["k"]
    one = np.ones(1, np.float32)
    assert_same(run(model, {"x": one}), [one * 3, one * 2])


CHILD = """
import sys
from ir.capture import capture
def megabytes(field):  # of this process image; ru_maxrss would count the parent's memory too
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines[field].split()[0]) / 1e3
capture(sys.argv[2])
before = megabytes("VmRSS")
model = capture(sys.argv[1])
assert model.graph.initializers["w"].const_value.nbytes == 500_000_000
print(megabytes("VmRSS") - before, megabytes("VmHWM") - before)
"""


@pytest.mark.slow
def test_external_data_is_not_loaded(tmp_path):
    """500 MB of external weights (a sparse file) cost less than 100 MB, at the peak too."""
    small = save(capture(proto()), tmp_path / "small.onnx")
    model = proto()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.dims[:] = [4, 31_250_000]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    for info in (*model.graph.input, *model.graph.output):
        if info.name in "wy":
            info.type.tensor_type.shape.dim[1].dim_value = 31_250_000
    del model.graph.node[2].attribute[:]
    model.graph.node[2].CopyFrom(helper.make_node("Mul", ["h", "k"], ["z"]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(500_000_000)
    args = [sys.executable, "-c", CHILD, str(tmp_path / "m.onnx"), str(small)]
    done = subprocess.run(args, capture_output=True, text=True, check=True)
    growth, peak = map(float, done.stdout.split())
    assert growth < 100
    assert peak < 100


def chain(blocks: int) -> onnx.ModelProto:
    """8 nodes a block at opset 17: what a transformer's exporter writes, more or less."""
    nodes, weights, x = [], [], "x"
    for i in range(blocks):
        array = np.ones((16, 16), np.float32)
        weights.append(onnx.numpy_helper.from_array(array, f"w{i}"))
        one = onnx.numpy_helper.from_array(np.ones(1, np.float32))
        nodes += [
            helper.make_node("Constant", [], [f"k{i}"], value=one),
            helper.make_node("MatMul", [x, f"w{i}"], [f"a{i}"]),
            helper.make_node("Mul", [f"a{i}", f"k{i}"], [f"b{i}"]),
            helper.make_node("ReduceMean", [f"b{i}"], [f"m{i}"], axes=[-1]),
            helper.make_node("Sub", [f"b{i}", f"m{i}"], [f"s{i}"]),
            helper.make_node("Softmax", [f"s{i}"], [f"y{i}"], axis=-1),
            helper.make_node("Shape", [f"y{i}"], [f"d{i}"]),
            helper.make_node("Reshape", [f"y{i}", f"d{i}"], [f"z{i}"]),
        ]
        x = f"z{i}"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 16])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def cpu_seconds(model: onnx.ModelProto) -> float:
    best = np.inf
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_SELF)
        capture(model)
        end = resource.getrusage(resource.RUSAGE_SELF)
        best = min(best, end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    return best


@pytest.mark.slow
def test_time_is_linear_in_nodes():
    small, large = cpu_seconds(chain(250)), cpu_seconds(chain(1250))
    assert large < 3
    assert np.log(large / small) / np.log(5) < 1.15
