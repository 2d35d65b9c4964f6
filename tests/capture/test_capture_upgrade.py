"""Old nodes mean the same after capture: ONNX Runtime on the old model is the oracle."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from ir.capture import WORKING_IR_VERSION, WORKING_OPSET, capture, to_proto
from ir.errors import CaptureError
from tests.capture.running import assert_same, run

X = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)

CASES = {}
for line in (Path(__file__).parent / "old_nodes.txt").read_text().splitlines()[1:]:
    name, opset, outputs, body = line.split(" | ")
    CASES[name] = (int(opset), "float[2,3,4,6] x", outputs, body)


def old_model(opset: int, inputs: str, outputs: str, body: str) -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )


@pytest.mark.parametrize("name", CASES)
def test_same_numbers_as_the_old_model(name):
    old = old_model(*CASES[name])
    before = old.SerializeToString()
    new = capture(old)
    assert new.opset_imports[""] == WORKING_OPSET
    assert new.ir_version == WORKING_IR_VERSION
    assert not any(node.op_type == "Constant" for node in new.graph)
    assert old.SerializeToString() == before
    assert_same(run(new, {"x": X}), run(old, {"x": X}))


def test_ranks_unknown_before_13_are_worked_around():
    old = old_model(
        11, "float[N,C,H,W] x, int64[K] s", "float y", "r = Reshape(x, s) y = Softmax(r)"
    )
    for shape in ([2, 3, 4, 6], [6, 24], [4, 1, 36]):
        feeds = {"x": X, "s": np.array(shape)}
        assert_same(run(capture(old), feeds), run(old, feeds))


@pytest.mark.parametrize("declared", ["float[2,6,5]", "float[N,C,L]"])
def test_group_normalization_scales_every_channel(declared):
    old = old_model(
        18,
        f"{declared} x, float[3] s, float[3] b",
        "float y",
        "y = GroupNormalization<num_groups=3>(x, s, b)",
    )
    rng = np.random.default_rng(1)
    x, s, b = (rng.standard_normal(shape).astype(np.float32) for shape in [(2, 6, 5), 3, 3])
    grouped = x.reshape(2, 3, 10)
    normal = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(
        grouped.var(-1, keepdims=True) + 1e-5
    )
    want = (normal * s[:, None] + b[:, None]).reshape(x.shape)
    assert_same(run(capture(old), {"x": x, "s": s, "b": b}), [want], rtol=1e-4, atol=1e-5)


def test_batch_normalization_per_activation():
    old = old_model(
        8,
        "float[2,3,4] x, float[3,4] s, float[3,4] b, float[3,4] m, float[3,4] v",
        "float[2,3,4] y",
        "y = BatchNormalization<spatial=0,epsilon=0.01>(x, s, b, m, v)",
    )
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    s, b, m, v = (rng.random((3, 4)).astype(np.float32) for _ in range(4))
    want = (x - m) / np.sqrt(v + 0.01) * s + b
    assert_same(run(capture(old), {"x": x, "s": s, "b": b, "m": m, "v": v}), [want], rtol=1e-4)


def test_roi_align_is_not_shifted():
    """onnx's reference runs the new node: ONNX Runtime 1.32 has no kernel for RoiAlign-22."""
    old = old_model(
        10,
        "float[2,3,4,6] x, float[2,4] r",
        "float y",
        "b = Constant<value = int64[2] {1,0}>() "
        "y = RoiAlign<output_height=2,output_width=2,sampling_ratio=2>(x, r, b)",
    )
    feeds = {"x": X, "r": np.array([[0, 0.5, 3, 2.5], [1, 1, 4, 3]], np.float32)}
    got = ReferenceEvaluator(to_proto(capture(old))).run(None, feeds)
    assert_same(got, run(old, feeds), rtol=1e-4, atol=1e-5)


def test_clip_of_half_floats_gets_half_bounds():
    old = old_model(10, "float16[2,3] x", "float16 y", "y = Clip<min=-0.5,max=3.4e38>(x)")
    x = X[:, :, 0, 0].astype(np.float16)
    assert_same(run(capture(old), {"x": x}), [np.maximum(x, np.float16(-0.5))])


def test_dropout_mask_keeps_its_old_type():
    for opset, onnx_type, numpy_type in ((9, "float", np.float32), (11, "bool", np.bool_)):
        old = old_model(opset, "float[2,3] x", f"float y, {onnx_type} m", "y, m = Dropout(x)")
        y, mask = run(capture(old), {"x": X[:, :, 0, 0]})
        assert mask.dtype == numpy_type
        assert mask.all()
        assert (y == X[:, :, 0, 0]).all()


def test_scan_8_runs_each_example_of_a_batch():
    old = old_model(
        8,
        "float[2,3] h, float[2,5,3] x",
        "float[2,3] last, float[2,5,3] all",
        "last, all = Scan<num_scan_inputs=1, directions=[1], body = b (float[3] s, float[3] e) => "
        "(float[3] t, float[3] u) { t = Add(s, e) u = Mul(t, e) }>(, h, x)",
    )
    rng = np.random.default_rng(3)
    h, x = rng.random((2, 3)).astype(np.float32), rng.random((2, 5, 3)).astype(np.float32)
    feeds = {"h": h, "x": x}
    total, rows = h.copy(), []
    for step in range(4, -1, -1):
        total = total + x[:, step]
        rows.append(total * x[:, step])
    want = [total, np.stack(rows, axis=1)]
    assert_same(run(capture(old), feeds), want)


def test_bodies_and_functions_are_upgraded_too():
    old = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 11, "local": 1]>
        g (bool c, float[?,3] x) => (float y) {
          z = If(c)<
            then_branch = t () => (float a) { k = Constant<value = float {2.0}>() m = local.F(x)
                                              a = Mul(m, k) },
            else_branch = e () => (float a) { a = ReduceSum<axes=[1]>(x) }>
          y = local.G<axis=0>(z)
        }
        <domain: "local", opset_import: ["": 9]>
        F (x) => (y) { y = Slice<starts=[0],ends=[1],axes=[1]>(x) }
        <domain: "local", opset_import: ["": 11]>
        G <axis> (x) => (y) { y = Softmax<axis: int = @axis>(x) }
    """)
    model = capture(old)
    assert all(f.opset_imports[""] == WORKING_OPSET for f in model.functions.values())
    names = [
        v.name
        for graph in (model.graph, *model.graph.subgraphs())
        for n in graph
        for v in n.outputs
    ]
    assert len(set(names)) == len(names)
    x = X[0, :, :3, 0]

    def softmax(v):
        return np.exp(v) / np.exp(v).sum()

    assert_same(run(model, {"c": np.array(True), "x": x}), [softmax(2 * x[:, :1])])
    summed = x.sum(axis=1, keepdims=True)
    assert_same(run(model, {"c": np.array(False), "x": x}), [softmax(summed)])


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3)])
@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("include", [0, 1])
def test_pooling_text_changed_but_not_its_numbers(kernel, ceil, include):
    for pads in (
        "pads=[0,0,0,0]",
        "pads=[1,0,1,0]",
        "pads=[1,1,1,1]",
        'auto_pad="SAME_UPPER"',
        'auto_pad="VALID"',
    ):
        shape = f"kernel_shape=[{kernel[0]},{kernel[1]}],strides=[2,2],{pads},ceil_mode={ceil}"
        for body in (f"y = MaxPool<{shape}>(x)",
                     f"y = AveragePool<{shape},count_include_pad={include}>(x)"):  # fmt: skip
            old = old_model(10, "float[2,3,4,6] x", "float y", body)
            assert_same(run(capture(old), {"x": X}), run(old, {"x": X}))


def test_newer_opsets_pass_where_nothing_changed():
    body = "y = Relu(x)"
    assert capture(old_model(26, "float[2] x", "float[2] y", body)).opset_imports[""] == 25


def test_newer_operators_are_refused_by_name():
    with pytest.raises(CaptureError, match=r"opset 28 changed this operator.*Cast"):
        capture(old_model(28, "float[2] x", "float[2] y", "y = Cast<to=1>(x)"))


@pytest.mark.parametrize(("opset", "body", "message"), [
    (6, "y = Relu(x)", "opset 6; supported are 7"),
    (99, "y = Relu(x)", "opset 99; supported are 7"),
    (12, "y = Gelu(x)", "unknown operator in the default domain at opset 12.*Gelu"),
    (25, "y = Frobnicate(x)", "unknown operator in the default domain"),
    (9, "y = Slice<starts=[0]>(x)", "does not fit its operator"),
    (11, 's = Constant<value = float[1] {2.0}>() y = Resize<mode="linear",'
         'coordinate_transformation_mode="tf_half_pixel_for_nn">(x, s, s)', "tf_half_pixel_for_nn"),
])  # fmt: skip
def test_what_cannot_be_upgraded_says_why(opset, body, message):
    with pytest.raises(CaptureError, match=message) as info:
        capture(old_model(opset, "float[2] x", "float y", body))
    assert info.value.hint


def test_custom_domains_pass_untouched():
    model = capture(
        parser.parse_model("""
        <ir_version: 8, opset_import: ["": 12, "com.microsoft": 1]>
        g (float[2,3] x) => (float y) { t = com.microsoft.Gelu(x) y = Softmax<axis=1>(t) }
    """)
    )
    assert [(n.domain, n.op_type) for n in model.graph] == [
        ("com.microsoft", "Gelu"), ("", "Flatten"), ("", "Shape"), ("", "Softmax"), ("", "Reshape")
    ]  # fmt: skip
    assert model.opset_imports["com.microsoft"] == 1
