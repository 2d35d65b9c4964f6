"""Layers are freed from their codes as long as each wins back enough."""

import numpy as np
import pytest

import ir
from ir import ops
from ir.errors import PassError
from passes.precision.spare import input_sqnr
from passes.sites import linears
from tests.helpers import CONVS, MLP, apply, feeds

W8 = "collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8}"
TWO_BITS = "collect{histogram} | place{w=i2@0x1*f32,a=u8@0*f32+u8} | rtn"


def coded(graph):
    return [s.y.name for s in linears(graph) if ops.decode_of(s.weight) is not None]


def test_the_layer_with_the_outlier_is_freed_alone():
    """One sample has an input of 10,000 in a channel that a zero row of w1 ignores."""
    graph = ir.parse(MLP)
    import onnx_ir

    weight = graph.graph.initializers["w1"].const_value.numpy().copy()
    weight[0] = 0
    graph.graph.initializers["w1"].const_value = onnx_ir.tensor(weight)
    data = feeds(graph, 3, 16)
    data[0]["x"][0, 0] = 10000
    result = apply(graph, f"{W8} | rtn | spare{{gain=3,share=1.0,enough=999}}", data)
    step = result.report.steps[-1]
    assert step.sites == ["Gemm 'h'"]
    assert [s.y.name for s in linears(result.graph) if ops.decode_of(s.x)] == ["m"]
    (note,) = step.notes
    assert note.startswith("%h stays float: ")
    before, after = note.split(": ")[1].removesuffix(" dB").split(" -> ")
    assert float(after) - float(before) > 3
    assert result.report.steps[-1].sqnr["y"] == pytest.approx(float(after), abs=5)
    (skip,) = step.skips
    assert skip.site == "MatMul 'm'"


def test_a_share_of_the_weights_is_the_limit():
    half = apply(MLP, f"{TWO_BITS} | spare{{share=0.4,gain=-200}}", 2).report.steps[-1]
    assert half.sites == ["MatMul 'm'"], "64 of 192 weights"
    assert any("the share of work" in skip.reason for skip in half.skips)
    whole = apply(MLP, f"{TWO_BITS} | spare{{share=1.0,gain=-200}}", 2)
    assert coded(whole.graph) == []
    assert ir.show(whole.graph) == ir.show(ir.parse(MLP))


def test_only_so_many_layers_are_tried():
    step = apply(
        CONVS, f"{W8} | rtn | spare{{tries=1,gain=90,share=1,enough=999}}", 2
    ).report.steps[-1]
    assert sum("not tried" in skip.reason for skip in step.skips) == 1
    assert sum("less than 90" in skip.reason for skip in step.skips) == 2, "worst, and first"


def test_equal_outputs_do_not_turn_gains_into_nothing():
    """One output is the input itself: infinitely many dB on both sides of every trial."""
    text = MLP.replace("-> %y {", "-> %y, %same {").replace(
        "%h  :", "%same : f32[n,8] = Identity(%x)\n  %h  :"
    )
    step = apply(text, f"{W8} | rtn | spare{{gain=60,share=1,enough=999}}", 2).report.steps[-1]
    assert step.sites == []
    assert all("less than 60" in skip.reason for skip in step.skips)
    assert len(step.skips) == 2


def test_values_without_fixed_codes_are_reported():
    pipeline = (
        "collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8,dynamic=true} | rtn"
        " | spare{enough=999}"
    )
    step = apply(MLP, pipeline, 2).report.steps[-1]
    assert {skip.reason for skip in step.skips} == {
        "its input has no codes of a fixed scale with a histogram"
    }


def test_without_data_there_is_nothing_to_measure_on():
    part = apply(MLP, f"{W8} | rtn", 2)
    with pytest.raises(PassError, match="there is no data to measure layers on; pass data="):
        apply(part.graph, "spare", stats=part.stats, float_graph=part.float_graph)


def test_the_figure_that_orders_the_trials_is_the_codes_own_error():
    """Against x itself through its codes, of the same data."""
    graph = ir.parse(MLP)
    data = feeds(graph, 1, 4096)
    result = apply(graph, W8, data)
    from types import SimpleNamespace

    ctx = SimpleNamespace(stats=result.stats)
    site = next(linears(result.graph))
    from ir.formats import integer

    encode = ops.encode_of(site.x)
    scale, zero = (v.const_value.numpy() for v in encode.inputs[1:])
    qtype, x = ops.qtype_of(encode), data[0]["x"]
    back = integer.decode(integer.encode(x, scale, zero, qtype), scale, zero, qtype)
    exact = 10 * np.log10(np.square(x).sum() / np.square(x - back).sum())
    assert input_sqnr(site, ctx) == pytest.approx(exact, abs=0.7)
