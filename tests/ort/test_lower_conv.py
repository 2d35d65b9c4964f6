"""Conv on codes: QLinearConv, with Relu and Clip, biases and groups."""

import numpy as np
import pytest

import backends
from backends.ort.check import optimised_model
from backends.ort.session import Level, Session
from ir.graph import nodes
from tests.ort.coded import U8, Coded, steps, tame, wild

SCALE, ZERO = 0.02, 7
OUT = 0.0517
"""No multiple of input scale x weight scale: no result lies half-way between two codes."""


def conv(
    codes, *, bias=None, middle=None, out=(OUT, 100), group=1, scale=0.01, shape=(1, 4, 6, 6),
    dynamic=False, **attributes,
):  # fmt: skip
    made = Coded(list(shape))
    x = made.dynamic(made.x) if dynamic else made.coded(made.x, SCALE, ZERO)
    weight = made.weight(codes, scale, "i8@" + "x".join(["1"] + ["0"] * (codes.ndim - 1)) + "*f32")
    extra = [made.const(np.asarray(bias, np.float32), "b")] if bias is not None else []
    y = made.op("Conv", x, weight, *extra, group=group, **attributes)
    if middle is not None:
        limits = [made.const(np.float32(limit), "limit") for limit in middle[1:]]
        y = made.op(middle[0], y, *limits)
    if out is None:
        return made.done(y)
    return made.done(made.coded(y, *out))


def both(graph, x):
    artifact = backends.build(graph, "ort")
    plain = Session(graph, level=Level.NONE, threads=1).run({"x": x})
    executed = artifact.run({"x": x}, threads=1)
    return next(iter(plain.values())), next(iter(executed.values())), artifact


def same_codes(plain, executed):
    """At most one code in a thousand may round the other way, and by one step only."""
    assert np.ptp(plain) > 20 * OUT
    gap = np.abs(plain - executed) / OUT
    assert gap.max() < 1.01
    assert (gap > 0.01).mean() <= 1e-3


CASES = [
    ((8, 4, 3, 3), 1, {"pads": [1] * 4}),
    ((8, 4, 1, 1), 1, {}),
    ((8, 4, 3, 3), 1, {"strides": [2, 2], "dilations": [2, 2]}),
    ((8, 2, 3, 3), 2, {"auto_pad": "SAME_UPPER"}),
    ((4, 1, 3, 3), 4, {"pads": [1] * 4}),
    ((8, 1, 3, 3), 4, {"pads": [1] * 4}),
]


@pytest.mark.parametrize(("shape", "group", "attributes"), CASES)
@pytest.mark.parametrize("codes", [tame, wild])
def test_conv_runs_on_integers(shape, group, attributes, codes):
    bias = np.linspace(-1, 1, shape[0])
    bias = np.round(bias / (SCALE * 0.01)) * (SCALE * 0.01)  # no rounding of the bias itself
    graph = conv(codes(shape), bias=bias, group=group, **attributes)
    plain, executed, artifact = both(graph, steps((1, 4, 6, 6), SCALE, ZERO))
    assert [k["kernel"] for k in artifact.manifest.kernels] == ["QLinearConv"]
    same_codes(plain, executed)
    (node,) = [n for n in nodes(artifact.model) if n.op_type == "QLinearConv"]
    safe = codes is tame or (shape[1] == 1 and shape[0] == group)
    assert node.inputs[3].dtype.name == ("INT8" if safe else "UINT8")


def test_conv_of_one_axis():
    graph = conv(tame((8, 4, 3)), bias=np.zeros(8), shape=(2, 4, 9), pads=[1, 1])
    plain, executed, artifact = both(graph, steps((2, 4, 9), SCALE, ZERO))
    assert not artifact.manifest.left_float
    same_codes(plain, executed)


@pytest.mark.parametrize("middle", [("Relu",), ("Clip", 0.0, 6.0), ("Clip", -2.0, 1.5)])
@pytest.mark.parametrize("out", [(OUT, 0), (OUT, 100), (6 / 255, 0)])
def test_relu_and_clip_go_along(middle, out):
    graph = conv(tame((8, 4, 3, 3)), bias=np.linspace(-1, 1, 8), middle=middle, out=out)
    plain, executed, artifact = both(graph, steps((1, 4, 6, 6), SCALE, ZERO))
    assert not artifact.manifest.left_float
    assert middle[0] != "Relu" or "Relu" not in [n.op_type for n in nodes(artifact.model)]
    gap = np.abs(plain - executed) / out[0]
    assert gap.max() < 1.01
    assert (gap > 0.01).mean() <= 2e-3
    assert len(np.unique(plain)) > 10


def test_a_clip_that_the_codes_end_at_costs_nothing():
    graph = conv(tame((8, 4, 3, 3)), middle=("Clip", 0.0, 6.0), out=(6 / 255, 0))
    artifact = backends.build(graph, "ort")
    assert "Clip" not in [n.op_type for n in nodes(artifact.model)]


@pytest.mark.parametrize("made", [{"out": None}, {"dynamic": True}, {"middle": ("Sqrt",)}])
def test_what_has_no_integer_conv_says_why_and_still_runs(made):
    graph = conv(tame((8, 4, 3, 3)), bias=np.full(8, 50.0), **made)
    plain, executed, artifact = both(graph, steps((1, 4, 6, 6), SCALE, ZERO))
    (left,) = artifact.manifest.left_float
    assert left["op"] == "Conv"
    assert "integer convolution" in left["reason"]
    np.testing.assert_allclose(executed, plain, rtol=1e-3, atol=OUT * 1.01)


def test_a_channel_of_zeros_makes_room_for_its_bias():
    codes = tame((8, 4, 3, 3))
    codes[2] = 0
    scale = np.full((8, 1, 1, 1), 0.01, np.float32)
    scale[2] = 1e-8
    bias = np.linspace(-1, 1, 8)
    bias[2] = 3.0
    graph = conv(codes, bias=bias, scale=scale)
    plain, executed, artifact = both(graph, steps((1, 4, 6, 6), SCALE, ZERO))
    assert not artifact.manifest.left_float
    same_codes(plain, executed)
    np.testing.assert_allclose(executed[0, 2], 3.0, atol=OUT / 2)


@pytest.mark.parametrize("scale", [1e-9, np.geomspace(1e-12, 0.01, 8)[:, None, None, None]])
def test_a_bias_past_32_bits_takes_wider_weights(scale):
    bias = np.linspace(-3, 3, 8)
    graph = conv(tame((8, 4, 3, 3)), bias=bias, scale=scale)
    plain, executed, artifact = both(graph, steps((1, 4, 6, 6), SCALE, ZERO))
    assert not artifact.manifest.left_float
    gap = np.abs(plain - executed) / OUT
    assert gap.max() < 1.01
    assert (gap > 0.01).mean() <= 0.02
    np.testing.assert_allclose(executed[0, 0], bias[0], atol=OUT)


@pytest.mark.parametrize("op", ["Conv", "Gemm"])
def test_a_layer_kept_float_between_codes_stays_float(op):
    """ONNX Runtime would round its weights to 8 bits by itself (0.3 % here)."""
    made = Coded([1, 4, 6, 6] if op == "Conv" else [9, 33])
    rng = np.random.default_rng(0)
    shape = (8, 4, 3, 3) if op == "Conv" else (8, 33)
    weight = made.const(rng.standard_normal(shape).astype(np.float32) * 0.3, "w")
    x = made.coded(made.x, SCALE, ZERO)
    attributes = {"pads": [1] * 4} if op == "Conv" else {"transB": 1}
    y = made.op(op, x, weight, made.const(np.zeros(8, np.float32), "b"), **attributes)
    graph = made.done(made.coded(y, 1e-3, 128))
    x = np.zeros(tuple(made.x.shape), np.float32)
    x[..., 0] = SCALE  # one step, so that 256 codes show the weights' own digits
    plain, executed, _ = both(graph, x)
    assert len(np.unique(plain)) > 5
    np.testing.assert_allclose(executed, plain, atol=1e-6)
    optimised = optimised_model(backends.build(graph, "ort").model)
    assert not {"QLinearConv", "QGemm"} & {node.op_type for node in optimised.graph.node}


def test_a_residual_block_stays_in_codes():
    made = Coded([1, 4, 6, 6])
    x = made.coded(made.x, SCALE, ZERO)
    y = made.op("Conv", x, made.weight(tame((4, 4, 3, 3)), 0.01, "i8@1x0x0x0*f32"), pads=[1] * 4)
    y = made.coded(y, OUT, 128)
    total = made.coded(made.op("Relu", made.op("Add", y, x)), OUT, 0)
    graph = made.done(total)
    plain, executed, artifact = both(graph, steps((1, 4, 6, 6), SCALE, ZERO))
    assert {k["kernel"] for k in artifact.manifest.kernels} == {"QLinearConv", "QLinearAdd"}
    same_codes(plain, executed)


def test_the_text_of_a_value_type_is_recorded():
    artifact = backends.build(conv(tame((8, 4, 3, 3))), "ort")
    assert set(artifact.manifest.qtypes.values()) == {U8, "i8@1x0x0x0*f32"}
