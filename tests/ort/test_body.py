"""Layers without a kernel, run through the functions' bodies: really rounded, and said to be so."""

import numpy as np
import pytest

import backends
import ir
import passes
from backends import reference
from backends.base import BODY
from backends.ort import check, lower
from backends.ort.session import Level, Session
from ir.formats import integer
from ir.qtype import QType

LAYERS = {
    "matmul": ("[6,5,16]", "%w : f32[16,12] = const seed:1\n %y : f32[6,5,12] = MatMul(%x, %w)"),
    "bias": ("[6,16]", "%w : f32[16,12] = const seed:1\n %b : f32[12] = const seed:2\n"
             "%h : f32[6,12] = MatMul(%x, %w)\n %y : f32[6,12] = Add(%h, %b)"),
    "gemm": ("[6,16]", "%w : f32[12,16] = const seed:1\n %b : f32[12] = const seed:2\n"
             "%y : f32[6,12] = Gemm(%x, %w, %b) {transB=1}"),
    "conv": ("[2,16,6,6]", "%w : f32[12,16,3,3] = const seed:1\n %b : f32[12] = const seed:2\n"
             "%y : f32[2,12,6,6] = Conv(%x, %w, %b) {pads=[1,1,1,1]}"),
    "depthwise": ("[2,16,6,6]", "%w : f32[16,1,3,3] = const seed:1\n"
                  "%h : f32[2,16,6,6] = Conv(%x, %w) {pads=[1,1,1,1], group=16}\n"
                  "%y : f32[2,16,6,6] = Relu(%h)"),
}  # fmt: skip
FORMS = {
    "static": "collect{minmax} | place{w=i4@0x1*f32,a=AU@0*f32+AU,portable=true} | rtn",
    "static_symmetric": "collect{minmax} | place{w=i4@0x1*f32,a=AI@0*f32,portable=true} | rtn",
    "dynamic": "place{w=i4@0x1*f32,a=AU@0*f32+AU,dynamic=true,portable=true} | rtn",
    "token": "place{w=AI@0x1*f32,a=AI@1x0*f32,dynamic=true,portable=true} | rtn",
    "token_affine": "place{w=AI@0x1*f32,a=AU@1x0*f32+AU,dynamic=true,portable=true} | rtn",
    "grouped": "place{w=u4@8x1*f32+u4,a=AI@1x0*f32,dynamic=true,portable=true} | rtn",
}


def graph_of(name):
    shape, body = LAYERS[name]
    return ir.parse(f"graph g(%x: f32{shape}) -> %y {{\n{body}\n}}")


def feed(graph, seed=0):
    shape = [int(d) for d in graph.graph.inputs[0].shape]
    x = np.random.default_rng(seed).normal(size=shape) * np.linspace(0.2, 3, shape[-1])
    return {"x": x.astype(np.float32)}


def pipeline(form, bits):
    return FORMS[form].replace("AU", f"u{bits}").replace("AI", f"i{bits}")


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    ("name", "form"),
    [(n, f) for n in LAYERS for f in FORMS
     if f.startswith(("static", "dynamic")) or n not in ("conv", "depthwise")],
)  # fmt: skip
def test_executed_as_the_reference_says(name, form, bits):
    graph = graph_of(name)
    data = [feed(graph, seed) for seed in range(2)]
    coded = passes.run(graph, pipeline(form, bits), data=data).graph
    artifact = backends.build(coded, "ort")
    kernels = [kernel["kernel"] for kernel in artifact.manifest.kernels]
    fast = bits == 8 and form in ("static", "dynamic", "token")
    assert len(kernels) == 1
    assert fast or kernels == [BODY]
    (found,) = artifact.run(data[0], threads=1).values()
    (wanted,) = reference.run(coded, data[0]).values()
    (plain,) = reference.run(graph, data[0]).values()
    size = np.abs(wanted).max()
    tolerance = 0.02 if fast and name in ("conv", "depthwise") else 2e-6  # u8 kernels write codes
    assert np.abs(found - wanted).max() <= tolerance * size
    assert np.abs(plain - wanted).max() > 1e-3 * size  # it was rounded at all


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("form", ["static", "token"])
def test_the_values_that_a_layer_reads_are_the_codes_number_for_number(form, bits):
    """An identity as the weight shows what the layer reads: no other rounding, none left out."""
    graph = ir.parse("""graph g(%x: f32[40,16]) -> %y {
  %w : f32[16,16] = const seed:1
  %y : f32[40,16] = MatMul(%x, %w)
}""")
    top = 2 ** (bits - 1) - 1
    eye = (np.eye(16) * (top if form == "token" else 7)).astype(np.float32)  # of scale one
    graph.graph.initializers["w"].const_value = ir.graph.onnx_ir.Tensor(eye)
    feeds = feed(graph)
    coded = passes.run(graph, pipeline(form, bits), data=[feeds]).graph
    (found,) = backends.build(coded, "ort").run(feeds, threads=1).values()
    found, x = found / eye.max(), feeds["x"]
    qtype = QType.parse(f"u{bits}@0*f32+u{bits}" if form == "static" else f"i{bits}@1x0*f32")
    low, high = (x.min(), x.max()) if form == "static" else (
        x.min(1, keepdims=True), x.max(1, keepdims=True))  # fmt: skip
    scale, zero = integer.scale_and_zero(low, high, qtype)
    wanted = integer.decode(integer.encode(x, scale, zero, qtype), scale, zero, qtype)
    np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=0)
    rows = [found] if form == "static" else found
    assert max(len(np.unique(row)) for row in rows) <= 2**bits


def test_a_convolution_between_codes_keeps_its_float_weights():
    """ONNX Runtime rounds float weights between a DequantizeLinear and a QuantizeLinear itself."""
    graph = ir.parse("""graph g(%x: f32[1,8,6,6]) -> %y {
  %w : f32[8,8,3,3] = const seed:1
  %h : f32[1,8,6,6] = Conv(%x, %w) {pads=[1,1,1,1]}
  %v : f32[8,8,3,3] = const seed:2
  %y : f32[1,8,6,6] = Conv(%h, %v) {pads=[1,1,1,1]}
}""")
    feeds = feed(graph)
    for a in ("u8@0*f32+u8", "i6@0*f32"):
        text = f"collect{{minmax}} | place{{w=i16@0x1*f32,a={a},portable=true}} | rtn"
        coded = passes.run(graph, text, data=[feeds]).graph
        made = lower.lower(coded).graph
        (full,) = Session(made, threads=1).run(feeds).values()
        (plain,) = Session(coded, level=Level.NONE, threads=1).run(feeds).values()
        gap = np.abs(full - plain)
        assert (gap > 1e-5 * np.abs(plain).max()).mean() < 0.02  # a code at its boundary, at most


def test_fast_kernels_are_kept_where_there_are_some():
    graph = ir.parse("""graph g(%x: f32[6,16]) -> %y {
  %w : f32[16,16] = const seed:1
  %h : f32[6,16] = MatMul(%x, %w)
  %v : f32[2,16,8] = const seed:2
  %y : f32[2,6,8] = MatMul(%h, %v)
}""")
    text = "place{w=i8@0x1*f32,a=i8@1x0*f32,dynamic=true,portable=PORTABLE} | rtn"
    kernels = {}
    for portable in ("false", "true"):
        coded = passes.run(graph, text.replace("PORTABLE", portable), data=[feed(graph)]).graph
        rows = backends.build(coded, "ort").manifest.kernels
        kernels[portable] = [row["kernel"] for row in rows]
    assert kernels["true"] == ["MatMulIntegerToFloat", BODY]
    assert BODY not in kernels["false"]
    assert "one scale per output" in rows[1]["reason"]


def test_a_rounding_that_is_gone_is_noticed():
    graph = graph_of("matmul")
    coded = passes.run(graph, pipeline("token", 4), data=[feed(graph)]).graph
    made = lower.lower(coded)
    assert [site.kernel for site in check.kernels(made)] == [BODY]
    decode = next(n for n in made.graph.graph if n.op_type == "Decode")
    reader = next(use.node for use in decode.outputs[0].uses())
    reader.replace_input_with(0, made.graph.graph.inputs[0])  # the layer reads unrounded values
    (site,) = check.kernels(made)
    assert site.kernel == ""
    assert "may not be rounded" in site.reason


@pytest.mark.parametrize(
    ("activation", "op", "why"),
    [("i4@1x0*f32", "Conv", "mixes"), ("i4@1x4*f32", "MatMul", "no body"),
     ("e9m9@0*f32", "MatMul", "not known"), ("i4@0*f32", "Add", "not coded")],
)  # fmt: skip
def test_what_no_body_runs_is_refused(activation, op, why):
    graph = graph_of("conv" if op == "Conv" else "bias")
    node = next(n for n in graph.graph if n.op_type == op)
    axes = "1x0x0x0" if op == "Conv" else "0x1"
    verdict = backends.target("ort").body(
        node, QType.parse(activation), QType.parse(f"i4@{axes}*f32")
    )
    assert not verdict.ok
    assert why in verdict.reason
