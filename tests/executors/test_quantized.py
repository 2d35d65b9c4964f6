"""Quantized ops against loops in plain integers, and the gradients of quantization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from backends.torch import Executor
from backends.torch.dtypes import to_numpy
from ir import ops
from ir.graph import Names
from ir.qtype import QType

HEAD = '<ir_version: 11, opset_import: ["": 25]>\n'


def ran(text: str, feeds: dict) -> dict:
    return Executor(ir.from_onnx_text(HEAD + text)).run(feeds)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("int8", -128, 127), ("uint8", 0, 255), ("int4", -8, 7), ("uint4", 0, 15), ("int2", -2, 1)],
)
def test_rounding_is_half_to_even_and_saturates(kind: str, low: int, high: int) -> None:
    x = np.arange(-600, 600, dtype=np.float32) / 4  # every half, on both sides of the range
    text = f"""
    g (float[N] x) => ({kind}[N] y)
    <float s = {{0.5}}, {kind} z = {{1}}>
    {{ y = QuantizeLinear(x, s, z) }}
    """
    y = ran(text, {"x": x})["y"]
    slow = [min(max(round(float(v) / 0.5) + 1, low), high) for v in x]  # Python rounds half to even
    assert y.tolist() == slow


def test_integer_products_do_not_saturate() -> None:
    a = np.full((2, 4096), 255, np.uint8)
    b = np.full((4096, 3), -128, np.int8)
    text = "g (uint8[M, K] a, int8[K, N] b) => (int32[M, N] y) { y = MatMulInteger(a, b) }"
    y = ran(text, {"a": a, "b": b})["y"]
    assert y.dtype is torch.int32
    assert set(y.flatten().tolist()) == {255 * -128 * 4096}


def test_integer_convolution_against_loops() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, 2, 5, 5), dtype=np.uint8)
    w = rng.integers(-128, 128, (3, 2, 3, 3), dtype=np.int8)
    text = """
    g (uint8[1, 2, 5, 5] x, int8[3, 2, 3, 3] w) => (int32[1, 3, 5, 5] y)
    <uint8 xz = {7}, int8[3] wz = {-3, 0, 5}>
    { y = ConvInteger <pads = [1, 1, 1, 1]> (x, w, xz, wz) }
    """
    y = ran(text, {"x": x, "w": w})["y"].numpy()
    wide = np.pad(x.astype(int) - 7, ((0, 0), (0, 0), (1, 1), (1, 1)))
    kernel = w.astype(int) - np.array([-3, 0, 5]).reshape(3, 1, 1, 1)
    for o in range(3):
        for i in range(5):
            for j in range(5):
                assert y[0, o, i, j] == (wide[0, :, i : i + 3, j : j + 3] * kernel[o]).sum()


def test_blocked_scales_lie_along_their_axis() -> None:
    codes = np.arange(-8, 8, dtype=np.int8).reshape(2, 8)
    scale = np.array([[1, 10], [100, 1000]], np.float32)
    text = """
    g (int8[2, 8] c, float[2, 2] s) => (float[2, 8] y)
    { y = DequantizeLinear <axis = 1, block_size = 4> (c, s) }
    """
    y = ran(text, {"c": codes, "s": scale})["y"]
    np.testing.assert_array_equal(y.numpy(), codes * np.repeat(scale, 4, 1))


ROUND_TRIP = """
g (float[N] x, float s) => (float[N] y)
<int8 z = {3}>
{ c = QuantizeLinear(x, s, z)
  y = DequantizeLinear(c, s, z) }
"""


def lsq(x: torch.Tensor, s: torch.Tensor, zero: int, low: int, high: int) -> torch.Tensor:
    """The textbook form: rounding as a detached residual, clipped codes as constants."""
    codes = torch.round(x / s).detach() + zero
    ratio = x / s + zero
    inside = (codes >= low) & (codes <= high)
    held = torch.where(inside, ratio + (codes - ratio).detach(), codes.clamp(low, high))
    return (held - zero) * s


def test_gradients_are_those_of_learned_step_size() -> None:
    x = torch.tensor([-80.0, -1.3, -0.2, 0.0, 0.4, 1.9, 80.0], requires_grad=True)
    s = torch.tensor(0.37, requires_grad=True)
    y = Executor(ir.from_onnx_text(HEAD + ROUND_TRIP)).run({"x": x, "s": s})["y"]
    expected = lsq(x, s, 3, -128, 127)
    torch.testing.assert_close(y, expected)
    weight = torch.arange(1.0, 8.0)
    ours = torch.autograd.grad((y * weight).sum(), (x, s))
    theirs = torch.autograd.grad((expected * weight).sum(), (x, s))
    assert ours[0].tolist() == theirs[0].tolist() == [0, 2, 3, 4, 5, 6, 0]
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", ["i8@0*f32", "i8@1x0*f32", "i4@1x4*f32", "i4@1x0*f32+i4"])
def test_encode_and_decode_run_and_pass_gradients(text: str) -> None:
    """The functions of the domain quant through their bodies: numbers and straight-through."""
    qtype = QType.parse(text)
    model = coded(qtype)
    executor = Executor(model)
    x = torch.linspace(-1, 1.013, 24).reshape(3, 8).requires_grad_()
    shape = qtype.scale_shape((3, 8))
    scale = torch.full(shape, 0.06, requires_grad=True)
    feeds = {"x": x, "scale": scale}
    if qtype.zero:
        feeds["zero"] = torch.ones(shape, dtype=torch.int8)
    y = executor.run(feeds)["y"]
    low, high = qtype.limits
    expected = lsq(x, wide(scale, x), 1 if qtype.zero else 0, low, high)
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y.square().sum(), (x, scale))
    theirs = torch.autograd.grad(expected.square().sum(), (x, scale))
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)
    plain = executor.run({k: v.detach() for k, v in feeds.items()}, outputs=["codes", "y"])
    assert plain["codes"].dtype is torch.int8
    assert to_numpy(plain["codes"]).max() <= high
    torch.testing.assert_close(plain["y"], expected.detach())


def wide(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if scale.dim() == 0:
        return scale
    for axis in range(x.dim()):
        scale = scale.repeat_interleave(x.shape[axis] // scale.shape[axis], axis)
    return scale


def coded(qtype: QType) -> ir.Model:
    """x, scale[, zero] -> Encode -> codes -> Decode -> y."""
    kind = {"i8": "int8", "i4": "int4"}[qtype.element]
    dims = str(list(qtype.scale_shape((3, 8)))) if not qtype.per_tensor else ""
    zero = f", {kind}{dims} zero" if qtype.zero else ""
    text = f"g (float[3, 8] x, float{dims} scale{zero}) => (float[3, 8] y) {{ y = Identity(x) }}"
    model = ir.from_onnx_text(HEAD + text)
    graph = model.graph
    names = Names(model)
    parts = list(graph.inputs)[1:]
    encode = ops.make("Encode", qtype, list(graph.inputs), names, "codes")
    encode.outputs[0].name = "codes"
    decode = ops.make("Decode", qtype, [encode.outputs[0], *parts], names, "y")
    identity = graph[0]
    identity.replace_input_with(0, decode.outputs[0])
    graph.insert_before(identity, [encode, decode])
    ops.define(model)
    return model
