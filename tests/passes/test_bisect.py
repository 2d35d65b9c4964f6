"""Bisection finds a planted defect: its step, its value and its node."""

import onnx_ir
import pytest

import ir
from ir.errors import PassError, VerifyError
from passes import Pipeline
from passes.bisect import bisect
from passes.evaluate import LIMIT_DB
from tests.helpers import CONVS, MLP, SMALL, Break, BreakQuietly, feeds

W8A8 = "collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn"


def find(text, pipeline, **options):
    graph = ir.parse(text)
    return bisect(graph, pipeline, feeds(graph), target=SMALL, **options)


@pytest.mark.parametrize(
    ("weight", "value", "node"), [("w1", "h", "Gemm 'h'"), ("w2", "m", "MatMul 'm'")]
)
def test_an_exact_step_that_moves_outputs(weight, value, node):
    pipeline = Pipeline.parse("drop_dead") + Pipeline(Break(weight)) + Pipeline.parse("dedup")
    found = find(MLP, pipeline)
    assert found is not None
    assert (found.number, found.value, found.node) == (2, value, node)
    assert found.step == str(Break(weight))
    assert found.db_before == LIMIT_DB
    assert found.db_after < 20


@pytest.mark.parametrize(("weight", "value"), [("w1", "c1"), ("w2", "c2")])
def test_a_lossy_step_between_good_ones(weight, value):
    pipeline = Pipeline.parse("collect{histogram}") + Pipeline(BreakQuietly(weight, 3.0))
    found = find(CONVS, pipeline + Pipeline.parse(W8A8))
    assert found is not None
    assert (found.number, found.value, found.node) == (2, value, f"Conv '{value}'")
    assert found.db_before == LIMIT_DB
    assert found.db_after < 20


def test_a_defect_behind_the_placement():
    pipeline = Pipeline.parse(W8A8) + Pipeline(BreakQuietly("b2", 4.0))
    found = find(MLP, pipeline)
    assert found is not None
    assert (found.number, found.value, found.node) == (4, "y", "Add 'y'")
    assert 20 < found.db_before < 60


def test_the_layer_that_costs_a_placement_most():
    """w2 has one weight so large that its neighbours round to nothing."""
    graph = ir.parse(MLP)
    value = graph.graph.initializers["w2"]
    numbers = value.const_value.numpy().copy()
    numbers[0] = 300.0
    value.const_value = onnx_ir.tensor(numbers)
    found = bisect(graph, W8A8, feeds(graph), target=SMALL, threshold_db=60)
    assert found is not None
    assert (found.number, found.value, found.node) == (2, "m", "MatMul 'm'")


def test_a_good_pipeline_has_no_finding():
    assert find(MLP, W8A8, threshold_db=20) is None
    found = find(MLP, W8A8, threshold_db=100)
    assert found is not None
    assert found.number == 2, "the check above can fail"
    assert str(found).startswith("step 2 'place{")
    assert f"outputs {LIMIT_DB:.1f} -> {found.db_after:.1f} dB" in str(found)


def test_other_errors_come_through():
    with pytest.raises(PassError, match="step 1 'place': no range was collected"):
        find(MLP, "place{w=i8@0x1*f32,a=u8@0*f32+u8}")

    class Wreck(Break):
        def run(self, graph, ctx):
            super().run(graph, ctx)
            graph.graph[0].op_type = "Nonsense"

    with pytest.raises(VerifyError, match="op 'Nonsense' is not in opset 25"):
        find(MLP, Pipeline(Wreck()))
