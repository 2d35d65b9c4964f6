"""Values with one scale a token: the integer kernel, its numbers, and what is refused."""

import numpy as np
import pytest

import backends
import passes
from backends.base import Target
from backends.ort.session import Level, Session
from backends.ort.token import is_token
from ir.errors import PipelineError
from ir.graph import nodes
from ir.qtype import QType
from tests.ort.coded import I8, Coded, tame, wild

BIAS = np.linspace(-1, 1, 8, dtype=np.float32)


def values(shape, seed=0):
    """Rows of very different size, one of zeros, and one whose scale lies on the floor."""
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    rows = x.reshape(-1, shape[-1])
    rows *= np.float32(10.0) ** np.arange(len(rows), dtype=np.float32)[:, None]
    rows[0] = 0
    rows[-1] *= np.float32(1e-20)
    return x


def layer(codes, shape, *, op="MatMul", bias=None, qtype=I8, twice=False, **attributes):
    made = Coded([*["n"] * (len(shape) - 1), shape[-1]])
    x = made.dynamic(made.x, f"i8@{'x'.join(['1'] * (len(shape) - 1))}x0*f32")
    weight = made.weight(codes, np.linspace(0.01, 0.02, 8, dtype=np.float32).reshape(
        (8, 1) if attributes.get("transB") else (1, 8)), qtype)  # fmt: skip
    extra = [made.const(bias, "b")] if op == "Gemm" and bias is not None else []
    y = made.op(op, x, weight, *extra, **attributes)
    if op == "MatMul" and bias is not None:
        y = made.op("Add", y, made.const(bias, "b"))
    return made.done(y, made.op("MatMul", x, weight)) if twice else made.done(y)


def looped(x, codes, scales):
    """The same by loops over tokens: scale, round, multiply in whole numbers, scale back."""
    out = np.empty((*x.shape[:-1], codes.shape[1]))
    for place in np.ndindex(*x.shape[:-1]):
        row = x[place].astype(np.float32)
        scale = np.maximum(np.abs(row).max() / np.float32(127), np.float32(1e-8))
        steps = np.clip(np.rint(row / scale), -128, 127).astype(np.int64)
        out[place] = (steps @ codes.astype(np.int64)) * (float(scale) * scales.astype(np.float64))
    return out


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("shape", [(5, 33), (2, 5, 33), (1, 33)])
@pytest.mark.parametrize("draw", [tame, wild])
def test_each_token_has_its_scale(draw, shape, bias):
    codes, x = draw((33, 8)), values(shape)
    artifact = backends.build(layer(codes, shape, bias=bias), "ort")
    assert [kernel["kernel"] for kernel in artifact.manifest.kernels] == ["MatMulIntegerToFloat"]
    (found,) = artifact.run({"x": x}, threads=1).values()
    wanted = looped(x, codes, np.linspace(0.01, 0.02, 8, dtype=np.float32))
    wanted += 0 if bias is None else bias
    size = np.abs(wanted).max(-1, keepdims=True)
    assert (np.abs(found - wanted) <= 2e-6 * size).all()  # of each row: small ones must be right


@pytest.mark.parametrize("bias", [None, BIAS, np.float32(0.5)])
@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_keeps_its_bias_out_of_the_scale(turned, bias):
    codes = tame((8, 33) if turned else (33, 8))
    qtype = "i8@1x0*f32" if turned else I8
    graph = layer(codes, (5, 33), op="Gemm", bias=bias, qtype=qtype, transB=turned, beta=2.0)
    artifact = backends.build(graph, "ort")
    assert [kernel["kernel"] for kernel in artifact.manifest.kernels] == ["MatMulIntegerToFloat"]
    x = values((5, 33))
    (plain,) = Session(graph, level=Level.NONE, threads=1).run({"x": x}).values()
    (found,) = artifact.run({"x": x}, threads=1).values()
    assert np.abs(plain).max() > 1
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)


def test_readers_share_the_codes():
    artifact = backends.build(layer(tame((33, 8)), (5, 33), twice=True), "ort")
    ops = [node.op_type for node in nodes(artifact.model)]
    assert ops.count("QuantizeLinear") == 1
    assert ops.count("MatMulIntegerToFloat") == 2
    assert not {"Encode", "Decode"} & set(ops)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("i8@1x0*f32", True), ("i8@1x1x0*f32", True), ("i8@0*f32", False), ("u8@1x0*f32", False),
     ("i8@1x0*f32+i8", False), ("i8@0x1*f32", False), ("i8@1x0*f16", False)],
)  # fmt: skip
def test_what_is_a_token(text, answer):
    assert is_token(QType.parse(text)) is answer


def test_scales_of_tokens_cannot_be_calibrated():
    with pytest.raises(PipelineError, match="exist at run time only"):
        passes.Pipeline.parse("place{w=i8@0x1*f32,a=i8@1x0*f32}")


def test_a_convolution_keeps_float_values():
    made = Coded([1, 8, 5, 5])
    y = made.op("Conv", made.x, made.const(tame((8, 8, 3, 3)).astype(np.float32), "w"))
    target: Target = backends.target("ort")
    node = y.producer()
    assert node is not None
    token, weight = QType.parse("i8@1x0*f32"), QType.parse("i8@1x0x0x0*f32")
    verdict = target.supports(node, token, weight)
    assert (verdict.ok, verdict.weights) == (False, True)
    assert "mixes" in verdict.reason
