"""Rounding to nearest: codes as brute force finds them, and rules of kernels kept in the graph."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import ir
from ir import ops
from ir.edit import Edit
from ir.errors import PassError
from ir.formats import integer
from ir.qtype import QType
from passes import evaluate
from passes.rounding import limits
from passes.rounding.clip_weights import group_extremes
from passes.rounding.rtn import LIMIT, round_weight
from passes.sites import linears
from tests.helpers import CONVS, MLP, apply, feeds

NUMBERS = arrays(np.float32, (4, 6), elements=st.floats(-100, 100, width=32))
QTYPES = ["i8@0*f32", "i8@0x1*f32", "i4@2x1*f16", "u4@2x1*f32+u4", "i4@0x1*f32+i4", "i2@1x3*f32",
          "u8@1x0*bf16+u8", "u2@4x1*f32+u2"]  # fmt: skip


@pytest.mark.parametrize("text", QTYPES)
@given(weight=NUMBERS)
def test_codes_are_the_nearest_that_may_be_used(text, weight):
    """Every code tried for every weight: none is nearer than the one chosen."""
    qtype = QType.parse(text)
    scale, zero = integer.scale_and_zero(*group_extremes(weight, qtype), qtype)
    codes = round_weight(weight, scale, zero, qtype)
    assert codes.dtype == integer.dtype(qtype.element)
    lowest, highest = qtype.limits
    if qtype.zero is None and qtype.signed:
        lowest = -highest
    choices = np.arange(lowest, highest + 1)
    wide = np.broadcast_to(
        integer.expand(scale.astype(np.float64), weight.shape, qtype), weight.shape
    )
    origin = np.zeros_like(wide) if zero is None else np.broadcast_to(
        integer.expand(zero.astype(np.float64), weight.shape, qtype), weight.shape
    )  # fmt: skip
    told = (choices - origin[..., None]) * wide[..., None]
    best = np.abs(told - weight[..., None]).min(-1)
    ours = np.abs((codes.astype(np.float64) - origin) * wide - weight)
    assert (ours <= best * (1 + 1e-5) + 1e-6 * wide).all()
    assert codes.astype(int).min() >= lowest


@pytest.mark.parametrize("text", QTYPES)
def test_a_scale_covers_its_group_to_half_a_step(text):
    qtype = QType.parse(text)
    weight = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    scale, zero = integer.scale_and_zero(*group_extremes(weight, qtype), qtype)
    assert scale.dtype == integer.scale_dtype(qtype)
    back = integer.decode(round_weight(weight, scale, zero, qtype), scale, zero, qtype)
    steps = np.abs(back - weight) / integer.expand(scale.astype(np.float32), weight.shape, qtype)
    assert steps.max() <= 1.02 if zero is not None else steps.max() <= 0.52


def test_weights_of_zero_have_codes_of_zero():
    for text in QTYPES:
        qtype = QType.parse(text)
        zeros = np.zeros((4, 6), np.float32)
        scale, zero = integer.scale_and_zero(*group_extremes(zeros, qtype), qtype)
        assert (scale.astype(np.float64) > 0).all()
        back = integer.decode(round_weight(zeros, scale, zero, qtype), scale, zero, qtype)
        np.testing.assert_array_equal(back, zeros)


# the pass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("qtype", ["i8@0*f32", "i8@0x1*f32", "i4@4x1*f16", "u4@4x1*f32+u4"])
def test_rounding_is_folding_the_encode(qtype):
    """Outputs stay what the graph with Encode computes; the codes are constants afterwards."""
    placed = apply(MLP, f"place{{w={qtype}}}", 2)
    rounded = apply(placed.graph, "rtn", 2, float_graph=placed.float_graph)
    assert not any(ops.is_op(node, "Encode") for node in rounded.graph.graph)
    data = feeds(placed.float_graph)
    db = [
        evaluate.sqnr(*(evaluate.outputs_of(g, data) for g in (placed.float_graph, graph)))["y"]
        for graph in (placed.graph, rounded.graph)
    ]
    assert db[1] == pytest.approx(db[0], abs=0.5)
    initializers = rounded.graph.graph.initializers
    assert "w1" not in initializers, "the float weight is gone"
    dtypes = {v.const_value.dtype for k, v in initializers.items() if "codes" in k}
    assert dtypes == {ops.onnx_type(QType.parse(qtype).element)}


@pytest.mark.parametrize("net", [MLP, CONVS])
def test_a_kernels_rule_is_kept_in_the_graph(net):
    """The small target asks for `pairs` at MatMul and Gemm; Conv shows codes that are free."""
    result = apply(net, "collect | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn", 2)
    for site in linears(result.graph):
        decode = ops.decode_of(site.weight)
        codes = decode.inputs[0].const_value.numpy()
        rows = limits.kernel_rows(codes, site.inputs, site.output)
        if site.node.op_type != "Conv":
            assert not limits.breaks_pairs(rows).any()
        assert np.abs(codes.astype(int)).max() <= 127
    assert result.report.sqnr["y"] > 25


def test_the_rule_would_be_broken_without_it():
    graph = apply(MLP, "collect | place{w=i8@0x1*f32,a=u8@0*f32+u8}", 2).graph
    for node in graph.graph:
        node.metadata_props.pop(LIMIT, None)
    free = apply(graph, "rtn", 2).graph
    codes = [ops.decode_of(site.weight).inputs[0].const_value.numpy().T for site in linears(free)]
    assert any(limits.breaks_pairs(rows).any() for rows in codes)


def test_one_scale_for_the_tensor_keeps_the_rule_too():
    result = apply(MLP, "collect | place{w=i8@0*f32,a=u8@0*f32+u8} | rtn", 2)
    for site in linears(result.graph):
        decode = ops.decode_of(site.weight)
        assert decode.inputs[1].const_value.numpy().shape == ()
        assert not limits.breaks_pairs(decode.inputs[0].const_value.numpy().T).any()
    assert result.report.sqnr["y"] > 20


def test_codes_under_a_rule_that_somebody_else_moves():
    graph = apply(MLP, "collect | place{w=i8@0*f32,a=u8@0*f32+u8}", 2).graph
    encode = next(n for n in graph.graph if ops.is_op(n, "Encode") and LIMIT in n.metadata_props)
    edit = Edit(graph)
    moved = edit.node("Identity", [encode.outputs[0]], like="moved", after=encode)
    again = edit.quant("Decode", ops.qtype_of(encode), [moved.outputs[0], encode.inputs[1]],
                       like="moved", after=moved)  # fmt: skip
    first = next(linears(graph)).node
    add = edit.node("Add", [first.inputs[1], again.outputs[0]], like="sum", before=first)
    edit.finish()
    assert add.outputs[0].name
    ir.verify(graph, ir.Stage.CODED)
    with pytest.raises(
        PassError, match="its codes must keep a kernel's rule, but not only Decodes"
    ):
        apply(graph, "rtn", 2)
