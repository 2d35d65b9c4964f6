"""Walking a model, and how its cost is kept linear."""

import gc

import onnx_ir

from ir import graph

NESTED = """
<ir_version: 11, opset_import: ["": 25]>
g (bool c, float[2] x) => (float[2] y) {
  y = If (c) <then_branch = t () => (float[2] a) {
                a = If (c) <then_branch = tt () => (float[2] p) { p = Neg(x) },
                            else_branch = te () => (float[2] q) { q = Abs(x) }> },
              else_branch = e () => (float[2] b) { b = Identity(x) }>
}
"""


def test_bodies_are_those_that_onnx_ir_finds_and_outer_ones_come_first():
    main = onnx_ir.from_onnx_text(NESTED).graph
    found = graph.inner_graphs(main)
    assert [body.name for body in found] == ["t", "tt", "te", "e"]
    assert found == list(main.subgraphs())


def test_collection_is_as_before_afterwards_even_when_the_work_fails():
    enabled, threshold = gc.isenabled(), gc.get_threshold()
    try:
        with graph.no_collection(), graph.few_collections():
            assert not gc.isenabled()
            assert gc.get_threshold()[0] >= 70_000
            raise KeyError
    except KeyError:
        pass
    assert (gc.isenabled(), gc.get_threshold()) == (enabled, threshold)
