"""Models that arrive quantized: read, kept as they are, or quantized anew on request."""

import numpy as np
import pytest

import passes
from ir.capture import to_proto
from ir.errors import PassError
from passes.cleanup.integer_layers import decode
from tests.e2e import execute
from tests.e2e.build import Build
from tests.e2e.quantized import QUANTIZED, plain

RECIPES = ("w8a8", "w8a8_dynamic", "w8a16", "w4a16")
INTEGER = ("Integer", "Linear", "QGemm")


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in QUANTIZED.items()}


@pytest.fixture(scope="module")
def reference():
    model, feeds = plain()
    return execute.outputs(model, feeds)


@pytest.mark.parametrize("name", QUANTIZED)
def test_read_and_kept(models, name):
    model, feeds = models[name]
    ran = execute.quantize(model, feeds, "clean", fused=False)
    both = (execute.outputs(each, feeds, optimize=False)
            for each in (model, to_proto(ran.result.graph)))  # fmt: skip
    # Q/DQ unfused rounds float sums: sums in another order move a code here and there
    assert execute.sqnr(*both) > (40 if name == "qdq" else 100)
    assert ran.db > 25  # fused: its integer kernels round elsewhere, and saturate without VNNI
    before = [n.op_type for n in models[name][0].graph.node]
    after = [n.op_type for n in ran.result.graph.graph]
    for op in set(before):
        if any(word in op for word in INTEGER):
            assert after.count(op) == before.count(op) or op == "DequantizeLinear"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", QUANTIZED)
def test_never_coded_twice(models, name, recipe):
    model, feeds = models[name]
    with pytest.raises(PassError, match="quantized already: put dequantize before"):
        passes.run(model, recipe, data=feeds)


@pytest.mark.parametrize("name", QUANTIZED)
def test_dequantized_is_nearer_to_the_float_model(models, reference, name):
    """Only the rounding of weights stays; the ReLU that static codes had swallowed is back."""
    model, feeds = models[name]
    result = passes.run(model, "dequantize", data=feeds)
    floats = to_proto(result.graph)
    assert not [n.op_type for n in floats.graph.node if any(w in n.op_type for w in INTEGER)]
    kept = execute.sqnr(reference, execute.outputs(model, feeds))
    found = execute.sqnr(reference, execute.outputs(floats, feeds))
    assert found > kept + 1
    assert result.report.steps[0].skips == []


@pytest.mark.parametrize("name", QUANTIZED)
def test_quantized_anew(models, reference, name):
    model, feeds = models[name]
    ran = execute.quantize(model, feeds, "requantize", fused=False)
    step = next(s for s in ran.result.report.steps if s.step.startswith("place"))
    assert len(step.sites) == 4
    assert ran.db > 33


def test_float_layers_of_a_half_quantized_model_are_coded():
    """One layer holds codes, the next is float: the second is coded, the first kept."""
    b = Build(40)
    x = b.input("x", ["n", 16])
    codes = b.const(b.rng.integers(0, 255, (16, 24)).astype(np.uint8))
    q, scale, zero = b.op("DynamicQuantizeLinear", x, outputs=3)
    product = b.op("MatMulInteger", q, codes, zero, b.const(np.uint8(128)))
    real = b.op("Cast", product, to=1)
    h = b.op("Mul", real, b.op("Mul", scale, b.const(np.float32(0.01))))
    b.output(b.op("MatMul", b.op("Relu", h), b.weight(24, 8), out="y"), ["n", 8])
    feeds = [{"x": b.rng.normal(size=(8, 16)).astype(np.float32)} for _ in range(4)]
    ran = execute.quantize(b.model(17), feeds, "w8a8")
    step = next(s for s in ran.result.report.steps if s.step.startswith("place"))
    assert len(step.sites) == 1
    assert [s.reason.partition(":")[0] for s in step.skips] == ["it is quantized already"]
    assert ran.db > 35
    assert any(n.op_type == "MatMulInteger" for n in ran.result.graph.graph)


def test_a_product_with_unusual_scales_is_left_alone():
    """The integers are read as such: no float says what they mean."""
    b = Build(41)
    x = b.input("x", ["n", 16])
    q, _, zero = b.op("DynamicQuantizeLinear", x, outputs=3)
    codes = b.const(b.rng.integers(0, 255, (16, 8)).astype(np.uint8))
    b.output(b.op("MatMulInteger", q, codes, zero, out="y"), ["n", 8], np.int32)
    feeds = [{"x": b.rng.normal(size=(4, 16)).astype(np.float32)}]
    result = passes.run(b.model(17), "dequantize", data=feeds)
    (step,) = result.report.steps
    assert "scales are not applied" in step.skips[0].reason
    assert [n.op_type for n in result.graph.graph] == ["DynamicQuantizeLinear", "MatMulInteger"]


def test_decode_is_the_definition():
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (6, 4)).astype(np.int8)
    for shape, axis, block in (((), None, 0), ((4,), 1, 0), ((6,), 0, 0), ((3, 4), 0, 2)):
        scale = rng.random(shape).astype(np.float32)
        zero = rng.integers(-5, 5, shape).astype(np.int8)
        slow = np.empty(codes.shape, np.float32)
        for i in range(6):
            for j in range(4):
                at = () if not shape else (i // block, j) if block else ((i, j)[axis],)
                slow[i, j] = (int(codes[i, j]) - int(zero[at])) * scale[at]
        np.testing.assert_allclose(decode(codes, scale, zero, axis, block), slow, rtol=1e-6)
