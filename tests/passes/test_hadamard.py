"""Online Hadamard transforms: the same function everywhere it runs, and outliers spread."""

import numpy as np
import pytest
import torch

import backends
import ir
import passes
from backends import reference
from backends.torch import Executor
from ir import hadamard, ops
from ir.analysis.cost import cost
from ir.errors import VerifyError
from ir.graph import nodes
from tests.models.reference import captured, module

WIDE = """
graph g(%x: f32[n,24]) -> %y {
  %w : f32[24,5] = const seed:1
  %y : f32[n,5] = MatMul(%x, %w)
}
"""


def transformed(text=WIDE, pipeline="hadamard"):
    return passes.run(ir.parse(text), pipeline).graph


def the_op(graph):
    return next(node for node in nodes(graph) if node.op_type == "Hadamard")


def test_reference_torch_and_onnxruntime_multiply_by_the_same_matrix(tmp_path):
    x = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
    graph = transformed()
    node = the_op(graph)
    assert node.overload == "12x2"
    value, want = node.outputs[0].name, x @ hadamard.matrix(24)
    (mixed,) = Executor(graph).run({"x": x}, outputs=[value]).values()
    np.testing.assert_allclose(mixed.numpy(), want, atol=1e-5)
    outputs = [reference.run(each, {"x": x})["y"] for each in (ir.parse(WIDE), graph)]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
    backends.build(passes.run(ir.parse(WIDE), "hadamard"), "ort").save(tmp_path / "model")
    found = backends.load(tmp_path / "model").run({"x": x})["y"]
    np.testing.assert_allclose(found, outputs[0], atol=1e-5)


def test_a_gradient_flows_back_through_the_transform():
    x, gradients = torch.randn(3, 24, requires_grad=True), []
    for graph in (ir.parse(WIDE), transformed()):
        (y,) = Executor(graph).run({"x": x}).values()
        gradients += torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)
    assert gradients[0].abs().max() > 0.1


def test_its_products_are_counted_factor_by_factor():
    plain, mixed = (cost(g, {"n": 7}).macs for g in (ir.parse(WIDE), transformed()))
    assert mixed - plain == 7 * 24 * (12 + 2)


def test_factors_that_do_not_fit_are_told():
    graph = transformed()
    the_op(graph).overload = "12x4"
    ops.define(graph)
    with pytest.raises(
        VerifyError, match=r"factor %hadamard2 has shape \[2, 2\], expected \[4, 4\]"
    ):
        ir.verify(graph)
    graph = transformed()
    the_op(graph).overload = "12 by 2"
    graph.functions[the_op(graph).op_identifier()] = next(iter(graph.functions.values()))
    with pytest.raises(VerifyError, match="no orders of factors"):
        ir.verify(graph)


def test_an_inverse_forgotten_is_caught(monkeypatch):
    """Order 12 is not symmetric: folding the transpose is another function."""
    turned = hadamard.transform

    def transposed(x, axis=-1, *, inverse=False, block=0):
        return turned(x, axis, inverse=not inverse, block=block)

    monkeypatch.setattr(hadamard, "transform", transposed)
    with pytest.raises(VerifyError, match="'hadamard' claims EXACT but moved output %y"):
        transformed()


def test_an_outlying_channel_is_spread_before_it_is_rounded():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 24)).astype(np.float32)
    x[:, 3] *= 100
    recipe = "place{w=i8@0x1*f32,a=i8@1x0*f32,dynamic=true} | rtn"
    plain, mixed = (
        passes.run(ir.parse(WIDE), p, data={"x": x}).report.sqnr["y"]
        for p in (recipe, f"hadamard | {recipe}")
    )
    assert mixed > plain + 5  # 30.0 and 35.5 dB


SITES = {
    # Layers a block (q k v are one layer in the ViTs, where the patches' convolution is refused):
    # 4 x 4 + the head; 4 x 4 and 4 + 1 of norms' conditions, 2 of the time, the last layer;
    # 6 x 6; 4 x 6; 30 x 7 + the head. Pairs: one an attention.
    "fashion_vit": (17, 4), "dit": (24, 4), "minilm": (36, 6), "whisper_encoder": (24, 4),
    "smollm2_off_grid": (211, 30),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [n if n in ("fashion_vit", "dit") else pytest.param(n, marks=pytest.mark.slow) for n in SITES],
)
def test_real_models_keep_their_function(name):
    data = None if name == "smollm2_off_grid" else [*module(name).calibration(1)]
    for pairs, count in zip(("false", "true"), SITES[name], strict=True):
        result = passes.run(captured(name), f"clean | hadamard{{pairs={pairs}}}", data=data)
        step = result.report.steps[-1]
        assert len(step.sites) == count, (pairs, len(step.sites), {s.reason for s in step.skips})
        assert step.difference <= 1e-5
