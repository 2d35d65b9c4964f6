"""Comparing value by value finds the layer that loses, and says what frees it."""

import numpy as np
import onnx_ir
import pytest

import ir
from ir.errors import PassError
from passes import evaluate
from passes.compare import WinBack, compare, gaps, win_back
from passes.select import select
from tests.helpers import CONVS, MLP, apply, feeds

W8 = "collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn"


def planted(weight):
    """The MLP with one weight whose outliers, meeting zeros only, leave others one bit."""
    graph = ir.parse(MLP)

    def write(name, where, number):
        value = graph.graph.initializers[name]
        numbers = value.const_value.numpy().copy()
        numbers[where] = number
        value.const_value = onnx_ir.tensor(numbers)

    write(weight, 0, 200.0)
    if weight == "w2":  # %r is 0 in its first channel
        write("w1", (slice(None), 0), 0.0)
        write("b1", 0, 0.0)
    return graph


@pytest.mark.parametrize(("weight", "layer"), [("w1", "h"), ("w2", "m")])
def test_the_planted_bad_layer_is_found_and_won_back(weight, layer):
    graph = planted(weight)
    data = [{"x": f["x"] * np.float32([0, *[1] * 7])} for f in feeds(graph, 2, 16)]
    result = apply(graph, W8, data)
    rows = {row.value: row for row in compare(graph, result.graph, data)}
    before = {"h": "x", "m": "r"}[layer]
    assert rows[layer].sqnr_db < 25
    assert before == "x" or rows[before].sqnr_db > rows[layer].sqnr_db + 5
    best, *others = win_back(graph, result.graph, data)
    assert best.layer == layer
    assert best.gain_db > 5
    assert all(best.gain_db > other.gain_db + 3 for other in others)
    kept = (
        f"collect{{histogram}} | place{{w=i8@0x1*f32,a=u8@0*f32+u8,keep=['{best.selector}']}} | rtn"
    )
    again = apply(graph, kept, data)
    outputs = [evaluate.outputs_of(g, data) for g in (graph, again.graph)]
    assert evaluate.sqnr(*outputs)["y"] == pytest.approx(best.sqnr_db, abs=1)


def test_rows_come_worst_first_and_gaps_in_order():
    graph = ir.parse(CONVS)
    data = feeds(graph, 2)
    quantized = apply(graph, W8, data).graph
    rows = compare(graph, quantized, data)
    assert [row.sqnr_db for row in rows] == sorted(row.sqnr_db for row in rows)
    ordered = gaps(graph, quantized, data)
    assert [row.value for row in ordered] == ["c1", "r1", "c2", "s", "c3", "y"]
    assert {row.value for row in rows} == {row.value for row in ordered}
    assert [row.value for row in ordered if row.output] == ["y"]
    assert ordered[0].op == "Conv"
    assert all(0.9 < row.cosine <= 1 for row in rows)


def test_a_graph_has_no_gap_to_itself():
    graph = ir.parse(MLP)
    assert {row.sqnr_db for row in compare(graph, graph, feeds(graph))} == {np.inf}


def test_figures_are_those_of_the_values():
    graph = ir.parse(MLP)
    data = feeds(graph, 3)
    result = apply(graph, W8, data)
    exact = evaluate.sqnr(*(evaluate.outputs_of(g, data) for g in (graph, result.graph)))
    (row,) = [row for row in compare(graph, result.graph, data) if row.output]
    # a product that is watched is rounded before its bias is added
    assert row.sqnr_db == pytest.approx(exact["y"], abs=1e-3)


def test_loops_are_compared_turn_by_turn():
    text = """graph g(%x: f32[n,4]) -> %y {
      %w : f32[4,4] = const seed:1
      %k : i64[] = const 3
      %go : bool[] = const true
      %y : f32[n,4] = Loop(%k, %go, %x) {
        body=graph b(%i: i64[], %on: bool[], %h: f32[n,4]) -> %on, %t {
          %o : f32[n,4] = MatMul(%h, %w)
          %t : f32[n,4] = Tanh(%o)
        }
      }
    }"""
    graph = ir.parse(text)
    data = feeds(graph)
    rows = {r.value: r for r in compare(graph, apply(graph, W8, data).graph, data)}
    assert {"o", "t", "y"} <= set(rows)
    assert 15 < rows["o"].sqnr_db < 60, "first turns against last ones would be near 0 dB"


def test_masks_of_infinity_do_not_stop_the_comparison():
    text = """graph g(%x: f32[n,4], %m: bool[n,4]) -> %y {
      %low : f32[] = const -inf
      %w : f32[4,4] = const seed:1
      %h : f32[n,4] = MatMul(%x, %w)
      %s : f32[n,4] = Where(%m, %h, %low)
      %y : f32[n,4] = Exp(%s)
    }"""
    graph = ir.parse(text)
    data = feeds(graph)
    rows = {r.value: r for r in compare(graph, apply(graph, W8, data).graph, data)}
    assert 20 < rows["s"].sqnr_db < 80


def test_graphs_without_a_common_name():
    other = ir.parse("graph g(%x: f32[n,8]) -> %other { %other : f32[n,8] = Relu(%x) }")
    with pytest.raises(PassError, match="share no value name; compare a model with one that ptqc"):
        compare(ir.parse(MLP), other, feeds(other))


def test_measuring_leaves_the_graphs_alone():
    graph = ir.parse(MLP)
    quantized = apply(graph, W8, 2).graph
    texts = [ir.show(quantized), ir.show(graph)]
    assert len(win_back(graph, quantized, feeds(graph))) == 2
    assert [ir.show(quantized), ir.show(graph)] == texts


def test_only_the_worst_layers_are_tried():
    graph = planted("w2")
    data = feeds(graph)
    quantized = apply(graph, W8, data).graph
    (only,) = win_back(graph, quantized, data, limit=1)
    assert only.layer == "m"


@pytest.mark.parametrize("name", ["/h[0]/MatMul_output", "a*b", "what?"])
def test_the_selector_names_that_layer_and_no_other(name):
    """Exporters put brackets into names; a selector reads them as a set of characters."""
    x, other = (ir.parse(MLP).graph.node(0).outputs[0] for _ in range(2))
    x.name, other.name = name, name.replace("[0]", "0").replace("*", "--").replace("?", "!")
    kernels = [x.producer(), other.producer()]
    selector = WinBack(name, "MatMul", 30.0, 1.0).selector
    chosen = select(selector, kernels)
    assert [id(node) in chosen for node in kernels] == [True, False]
