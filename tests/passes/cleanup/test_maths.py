"""The pure parts of the clean-up against slow obvious twins."""

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passes.cleanup.evaluate import evaluate
from passes.cleanup.fold_batchnorm import batchnorm_map
from passes.cleanup.linear import scale_inputs, scale_outputs
from passes.cleanup.partial import expand_target, reshape_target
from passes.cleanup.symbols import Poly, differ

SIZES = {"a": 3, "b": 5, "c": 7}
leaves = st.one_of(st.integers(-4, 6), st.sampled_from([Poly.named(n) for n in SIZES]))


def value(item):
    """The number that a polynomial is at SIZES, term by term."""
    if isinstance(item, int):
        return item
    return sum(n * int(np.prod([SIZES[name] for name in names])) for names, n in item.terms)


@given(st.lists(st.tuples(st.sampled_from("+-*"), leaves), min_size=1, max_size=5), leaves)
def test_polynomials_compute_as_their_numbers(steps, start):
    result, number = start, value(start)
    for op, leaf in steps:
        other = value(leaf)
        result = {"+": result + leaf, "-": result - leaf, "*": result * leaf}[op]
        number = {"+": number + other, "-": number - other, "*": number * other}[op]
    assert value(result) == number
    assert result == result + Poly.named("a") - Poly.named("a")


def test_division_is_exact_or_has_a_name_of_its_own():
    a, b = Poly.named("a"), Poly.named("b")
    assert (a * b * 6) // (b * 2) == a * 3
    assert (a * b) // (a * b) == 1
    assert (a + 1) // 2 == (a + 1) // 2
    assert (a + 1) // 2 != (a + 2) // 2
    with pytest.raises(ArithmeticError):
        (a - 5) // 2


def test_sizes_differ_only_where_that_is_certain():
    a, b = Poly.named("a"), Poly.named("b")
    assert differ(a, -1)
    assert differ(a + 1, a)
    assert not differ(a, 0)
    assert not differ(a, b)
    assert not differ(a, 3)


def test_targets():
    b, s = Poly.named("b"), Poly.named("s")
    assert reshape_target((b, s, 12), [b, s, 3, 4], allowzero=False) == [0, 0, 3, 4]
    assert reshape_target((b, s, 12), [b * s, 12], allowzero=False) == [-1, 12]
    assert reshape_target((b, s, 4), [s, b, 4], allowzero=False) is None
    assert reshape_target((b, 4, 2, s, 8), [b, -1, s, 8], allowzero=False) == [0, 8, -1, 8]
    assert reshape_target((b, 0), [b, 0], allowzero=True) is None
    assert expand_target((b, 1), [2, b, 8]) == [2, 1, 8]
    assert expand_target((b, 1), [s, 8]) is None


OPS = [
    ("Div", [np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])], {}),
    ("Slice", [np.arange(6), np.array([4]), np.array([-9]), np.array([0]), np.array([-2])], {}),
    ("Slice", [np.arange(6), np.array([-3]), np.array([2**62]), np.array([0])], {}),
    ("Gather", [np.arange(6).reshape(3, 2), np.array([[0, -1]])], {"axis": 0}),
    ("Range", [np.array(3), np.array(-4), np.array(-2)], {}),
    ("Range", [np.float32(0), np.float32(1), np.float32(0.25)], {}),
    ("ConstantOfShape", [np.array([2, 3])], {}),
    ("Expand", [np.arange(3).reshape(3, 1), np.array([2, 1, 4])], {}),
    ("Where", [np.array([True, False]), np.array([1, 2]), np.array([[3], [4]])], {}),
    ("Unsqueeze", [np.arange(3), np.array([-1, 0])], {}),
    ("Squeeze", [np.zeros((1, 2, 1)), np.array([-1])], {}),
    ("Flatten", [np.zeros((2, 3, 4))], {"axis": -1}),
    ("Reshape", [np.zeros((2, 3, 4)), np.array([0, -1])], {}),
    ("Cast", [np.array([1.7, -1.7])], {"to": 7}),
    ("ReduceMax", [np.arange(6.0).reshape(2, 3), np.array([1])], {"keepdims": 0}),
    ("Pow", [np.array([2, 3]), np.array([3, 2])], {}),
    ("Shape", [np.zeros((2, 3, 4))], {"start": 1, "end": -1}),
    ("Concat", [np.arange(2), np.arange(3)], {"axis": -1}),
    ("Tile", [np.arange(2), np.array([3])], {}),
]


@pytest.mark.parametrize(("op", "arrays", "attributes"), OPS, ids=[o[0] for o in OPS])
def test_evaluation_is_that_of_onnxruntime(op, arrays, attributes):
    arrays = [np.asarray(a) for a in arrays]
    names = [f"i{i}" for i in range(len(arrays))]
    proto = onnx.helper.make_node(op, names, ["o"], **attributes)
    inputs = [
        onnx.helper.make_tensor_value_info(
            n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
        )
        for n, a in zip(names, arrays, strict=True)
    ]
    output = onnx.helper.make_empty_tensor_value_info("o")
    graph = onnx.helper.make_graph([proto], "g", inputs, [output])
    opset = onnx.helper.make_opsetid("", 21)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    session = ort.InferenceSession(model.SerializeToString())
    expected = session.run(None, dict(zip(names, arrays, strict=True)))[0]
    node = onnx_ir.serde.deserialize_node(proto)
    found = evaluate(node, arrays, 21)[0]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def conv(x, w, group):
    """1x1-stride convolution without padding, by loops."""
    n, outputs, k = x.shape[0], w.shape[0], w.shape[2]
    side, width = x.shape[2] - k + 1, w.shape[1]
    y = np.zeros((n, outputs, side, side))
    for o in range(outputs):
        first = o // (outputs // group) * width
        for i in range(side):
            for j in range(side):
                patch = x[:, first : first + width, i : i + k, j : j + k]
                y[:, o, i, j] = (patch * w[o]).sum(axis=(1, 2, 3))
    return y


@pytest.mark.parametrize("group", [1, 2])
def test_scaling_a_conv(group):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 4, 5, 5)), rng.normal(size=(6, 4 // group, 3, 3))
    s, t = rng.normal(size=6), rng.normal(size=4)
    scaled = conv(x, scale_outputs(w, s, "Conv", group, False), group)
    np.testing.assert_allclose(scaled, conv(x, w, group) * s[:, None, None])
    factors = rng.normal(size=4)
    inner, bias = scale_inputs(w, factors, t, "Conv", group, False)
    mapped = x * factors[:, None, None] + t[:, None, None]
    np.testing.assert_allclose(conv(x, inner, group) + bias[:, None, None], conv(mapped, w, group))


@pytest.mark.parametrize("transposed", [False, True])
def test_scaling_a_matrix(transposed):
    rng = np.random.default_rng(0)
    x, w, s, t = (rng.normal(size=z) for z in ((2, 4), (4, 4), 4, 4))
    plain = w.T if transposed else w
    outer = scale_outputs(w, s, "Gemm", 1, transposed)
    np.testing.assert_allclose(x @ (outer.T if transposed else outer), x @ plain * s)
    inner, bias = scale_inputs(w, s, t, "Gemm", 1, transposed)
    found = x @ (inner.T if transposed else inner) + bias
    np.testing.assert_allclose(found, (x * s + t) @ plain)


def test_batchnorm_map():
    rng = np.random.default_rng(0)
    gain, shift, mean, x = (rng.normal(size=3) for _ in range(4))
    variance = rng.uniform(0.5, 2, size=3)
    s, t = batchnorm_map(gain, shift, mean, variance, 1e-3)
    np.testing.assert_allclose(s * x + t, (x - mean) / np.sqrt(variance + 1e-3) * gain + shift)
