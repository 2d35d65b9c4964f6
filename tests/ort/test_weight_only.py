"""Stored codes read by float kernels: packing against loops, and decoding when loading."""

import numpy as np
import pytest

import backends
from backends.ort.check import optimised_model
from backends.ort.session import Level, Session
from backends.ort.weight_only import pack, pack_zeros
from tests.ort.coded import Coded


def slow_pack(codes, bits, block):
    """One code at a time, as the MatMulNBits schema describes it."""
    inputs, size = codes.shape
    blocks = -(-inputs // block)
    out = np.zeros((size, blocks, block * bits // 8), np.uint8)
    for n in range(size):
        for k in range(inputs):
            place = (k % block) * bits
            out[n, k // block, place // 8] |= int(codes[k, n]) << (place % 8)
    return out


@pytest.mark.parametrize(("bits", "block", "inputs"), [(4, 16, 32), (4, 32, 50), (2, 16, 33)])
def test_packing_is_what_the_schema_says(bits, block, inputs):
    codes = np.random.default_rng(0).integers(0, 1 << bits, (inputs, 3))
    np.testing.assert_array_equal(pack(codes, bits, block), slow_pack(codes, bits, block))


def test_zero_points_fill_bytes_from_the_low_end():
    zeros = np.array([[1, 2, 3], [4, 5, 6]])
    assert pack_zeros(zeros, 4).tolist() == [[0x21, 0x03], [0x54, 0x06]]


def stored(op, qtype, codes, scale, zero=None, bias=None, **attributes):
    made = Coded([3, codes.shape[1 if attributes.get("transB") else 0]])
    weight = made.weight(codes, scale, qtype, zero)
    extra = [made.const(bias, "b")] if bias is not None else []
    return made.done(made.op(op, made.x, weight, *extra, **attributes))


def both(graph, x):
    artifact = backends.build(graph, "ort")
    plain = Session(graph, level=Level.NONE, threads=1).run({"x": x})
    executed = artifact.run({"x": x}, threads=1)
    return next(iter(plain.values())), next(iter(executed.values())), artifact


def near(plain, executed):
    """Within what 8-bit blocks of the input allow (the kernel multiplies in 8 bits)."""
    assert np.linalg.norm(plain - executed) < 0.012 * np.linalg.norm(plain)


FORMATS = [
    ("u4", 32, "+u4", 64), ("u4", 16, "+u4", 48), ("i4", 32, "", 64), ("i4", 128, "", 200),
    ("i4", 0, "", 70), ("u2", 16, "+u2", 64),
]  # fmt: skip


@pytest.mark.parametrize(("element", "block", "zeros", "inputs"), FORMATS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("real", ["f32", "f16"])
def test_blocked_weights_run_packed(element, block, zeros, inputs, turned, real):
    rng = np.random.default_rng(0)
    low, high = (-8, 8) if element == "i4" else (0, 1 << int(element[1]))
    codes = rng.integers(low, high, (inputs, 8))
    blocks = -(-inputs // block) if block else 1
    scale = rng.uniform(0.01, 0.02, (blocks, 8))
    zero = rng.integers(0, high, (blocks, 8)) if zeros else None
    qtype, attributes, bias = f"{element}@{block}x1*{real}{zeros}", {}, None
    if turned:
        codes, scale, zero = codes.T, scale.T, None if zero is None else zero.T
        qtype, attributes = f"{element}@1x{block}*{real}{zeros}", {"transB": 1}
        bias = np.linspace(-1, 1, 8, dtype=np.float32)
    if real == "f16":
        scale = scale.astype(np.float16)
    graph = stored(
        "Gemm" if turned else "MatMul", qtype, codes, scale, zero, bias=bias, **attributes
    )
    x = rng.standard_normal((3, inputs)).astype(np.float32)
    plain, executed, artifact = both(graph, x)
    assert [k["kernel"] for k in artifact.manifest.kernels] == ["MatMulNBits"]
    near(plain, executed)


def test_one_scale_for_all_runs_packed():
    codes = np.random.default_rng(0).integers(-8, 8, (70, 8))
    x = np.random.default_rng(1).standard_normal((3, 70)).astype(np.float32)
    plain, executed, artifact = both(stored("MatMul", "i4@0*f32", codes, 0.01), x)
    assert [k["kernel"] for k in artifact.manifest.kernels] == ["MatMulNBits"]
    near(plain, executed)


@pytest.mark.parametrize(
    ("qtype", "shape", "zero"),
    [
        ("i8@0x1*f32", (33, 8), None),
        ("u8@0x1*f32+u8", (33, 8), 100),
        ("i8@16x1*f32", (33, 8), None),
        ("u4@7x1*f32+u4", (33, 8), 3),
    ],
)
def test_other_weights_are_decoded_when_loading(qtype, shape, zero):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, shape)
    graph = stored("MatMul", qtype, codes, 0.01, zero)
    x = rng.standard_normal((3, shape[0])).astype(np.float32)
    plain, executed, artifact = both(graph, x)
    np.testing.assert_allclose(executed, plain, rtol=1e-5, atol=1e-5)
    ran = [node.op_type for node in optimised_model(artifact.model).graph.node]
    assert ran == ["MatMul"]
    constants = artifact.model.graph.initializers.values()
    stored_types = {v.dtype.name for v in constants if v.const_value.size > 99}
    assert stored_types <= {"INT8", "UINT8", "UINT4"}


def test_the_weight_of_a_conv_is_decoded_when_loading():
    made = Coded([1, 4, 6, 6])
    codes = np.random.default_rng(0).integers(-127, 128, (8, 4, 3, 3))
    y = made.op("Conv", made.x, made.weight(codes, 0.01, "i8@1x0x0x0*f32"))
    graph = made.done(y)
    x = np.random.default_rng(1).standard_normal((1, 4, 6, 6)).astype(np.float32)
    plain, executed, artifact = both(graph, x)
    np.testing.assert_allclose(executed, plain, rtol=1e-4, atol=1e-4)
    assert not artifact.manifest.left_float
    left = {node.op_type for node in optimised_model(artifact.model).graph.node}
    assert not left & {"Cast", "Mul", "DequantizeLinear"}
