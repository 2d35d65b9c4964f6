"""MatMul and Gemm: the kernel that runs, and its numbers."""

import numpy as np
import pytest

import backends
from backends.ort.lower import lower
from backends.ort.session import Level, Session
from ir.graph import nodes
from tests.ort.coded import I8, U8, Coded, steps, tame, wild

SCALE, ZERO = 0.02, 7


def matmul(codes, *, bias=None, qtype=I8, shape=(5, 33), op="MatMul", dynamic=False, **attributes):
    made = Coded(list(shape))
    x = made.dynamic(made.x) if dynamic else made.coded(made.x, SCALE, ZERO)
    weight = made.weight(codes, 0.01, qtype)
    if op == "Gemm":
        extra = [made.const(bias, "b")] if bias is not None else []
        return made.done(made.op("Gemm", x, weight, *extra, **attributes))
    y = made.op("MatMul", x, weight)
    return made.done(y if bias is None else made.op("Add", y, made.const(bias, "b")))


def both(graph, x):
    """(unfused and unlowered, executed, artifact)"""
    artifact = backends.build(graph, "ort")
    plain = Session(graph, level=Level.NONE, threads=1).run({"x": x})
    executed = artifact.run({"x": x}, threads=1)
    return next(iter(plain.values())), next(iter(executed.values())), artifact


def kernels(artifact):
    return [kernel["kernel"] for kernel in artifact.manifest.kernels]


BIAS = np.linspace(-1, 1, 8, dtype=np.float32)


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("shape", [(5, 33), (2, 5, 33), (1, 33)])
def test_matmul_runs_on_integers(shape, bias):
    graph = matmul(tame((33, 8)), shape=shape, bias=bias)
    plain, executed, artifact = both(graph, steps(shape, SCALE, ZERO))
    assert kernels(artifact) == ["MatMulIntegerToFloat"]
    assert np.abs(plain).max() > 1
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)
    assert "Add" not in [node.op_type for node in nodes(artifact.model)]


@pytest.mark.parametrize("bias", [None, BIAS, BIAS[None], np.float32(0.5)])
@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_runs_on_integers(turned, bias):
    codes = tame((8, 33) if turned else (33, 8))
    qtype = "i8@1x0*f32" if turned else I8
    graph = matmul(codes, op="Gemm", qtype=qtype, bias=bias, transB=turned, beta=2.0)
    plain, executed, artifact = both(graph, steps((5, 33), SCALE, ZERO))
    assert kernels(artifact) == ["MatMulIntegerToFloat"]
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)


def test_the_bias_of_a_gemm_for_each_row_stays_float():
    graph = matmul(tame((33, 8)), op="Gemm", bias=np.ones((5, 8), np.float32))
    plain, executed, artifact = both(graph, steps((5, 33), SCALE, ZERO))
    (left,) = artifact.manifest.left_float
    assert "one constant per output" in left["reason"]
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("element", ["i4", "i2"])
def test_narrow_weights_are_stored_narrow_and_multiplied_as_bytes(element):
    codes = np.random.default_rng(0).integers(-2, 2, (33, 8))
    graph = matmul(codes, qtype=f"{element}@0x1*f32")
    plain, executed, artifact = both(graph, steps((5, 33), SCALE, ZERO))
    assert kernels(artifact) == ["MatMulIntegerToFloat"]
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)
    constants = artifact.model.graph.initializers.values()
    stored = [v.dtype.name for v in constants if v.shape.dims == (33, 8)]
    assert stored == [element.replace("i", "INT")]


def test_weights_that_could_saturate_become_unsigned():
    graph = matmul(wild((33, 8)))
    plain, executed, artifact = both(graph, steps((5, 33), SCALE, ZERO))
    (node,) = [n for n in nodes(artifact.model) if n.op_type == "MatMulIntegerToFloat"]
    assert node.inputs[1].dtype.name == "UINT8"
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)
    tame_node = next(n for n in nodes(lower(matmul(tame((33, 8)))).graph) if "Integer" in n.op_type)
    assert tame_node.inputs[1].dtype.name == "INT8"


def test_dynamic_scales_share_one_quantization():
    made = Coded([4, 33])
    x = made.dynamic(made.x)
    first = made.op("MatMul", x, made.weight(tame((33, 8)), 0.01, I8))
    second = made.op("MatMul", x, made.weight(tame((33, 8), 1), 0.01, I8))
    graph = made.done(made.op("Sub", first, second))
    data = np.random.default_rng(1).standard_normal((4, 33)).astype(np.float32)
    plain, executed, artifact = both(graph, data)
    assert kernels(artifact) == ["MatMulIntegerToFloat"] * 2
    names = [node.op_type for node in nodes(artifact.model)]
    assert names.count("DynamicQuantizeLinear") == 1
    assert "Scale" not in names
    np.testing.assert_allclose(executed, plain, rtol=1e-4, atol=1e-4)


def test_a_dynamic_input_with_another_reader_keeps_both():
    made = Coded([4, 33])
    x = made.dynamic(made.x)
    y = made.op("MatMul", x, made.weight(tame((33, 8)), 0.01, I8))
    graph = made.done(y, made.op("Exp", x))
    data = np.random.default_rng(1).standard_normal((4, 33)).astype(np.float32)
    plain = Session(graph, level=Level.NONE, threads=1).run({"x": data})
    executed = backends.build(graph, "ort").run({"x": data}, threads=1)
    assert list(executed) == list(plain)
    for name, value in plain.items():
        np.testing.assert_allclose(executed[name], value, rtol=1e-4, atol=1e-4)


def test_codes_that_were_moved_still_feed_the_kernel():
    made = Coded([4, 6])
    parts = made.parts(SCALE, ZERO, U8)
    (codes,) = made.quant("Encode", U8, made.x, *parts)
    moved = made.op("Reshape", codes, made.const(np.array([8, 3]), "to"))
    moved.type = codes.type
    (x,) = made.quant("Decode", U8, moved, *parts)
    graph = made.done(made.op("MatMul", x, made.weight(tame((3, 8)), 0.01, I8)))
    plain, executed, artifact = both(graph, steps((4, 6), SCALE, ZERO))
    assert kernels(artifact) == ["MatMulIntegerToFloat"]
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("qtype", "said"),
    [("i8@16x1*f32", "one scale per output"), ("i8@1x0*f32", "one scale per output")],
)
def test_weights_without_a_kernel_say_why_and_still_run(qtype, said):
    graph = matmul(tame((32, 8)), qtype=qtype, shape=(5, 32))
    plain, executed, artifact = both(graph, steps((5, 32), SCALE, ZERO))
    (left,) = artifact.manifest.left_float
    assert said in left["reason"]
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)


def test_values_of_sixteen_bits_say_why_and_still_run():
    made = Coded([5, 33])
    x = made.coded(made.x, SCALE, 7, "u16@0*f32+u16")
    graph = made.done(made.op("MatMul", x, made.weight(tame((33, 8)), 0.01, I8)))
    plain, executed, artifact = both(graph, steps((5, 33), SCALE, ZERO))
    (left,) = artifact.manifest.left_float
    assert "u16" in left["reason"]
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)


def test_the_callers_graph_is_untouched():
    graph = matmul(tame((33, 8)))
    before = [(node.op_type, node.name) for node in nodes(graph)]
    lower(graph)
    assert [(node.op_type, node.name) for node in nodes(graph)] == before
