"""What one float layer would win back is found without building and running the freed graph."""

import numpy as np
import onnx.parser
import pytest

import ir
import passes
from ir import ops
from ir.edit import Edit
from ir.graph import clone
from passes import evaluate
from passes.precision.what_if import WhatIf
from passes.sites import linears, make_float

NET = """
<ir_version: 10, opset_import: ["": 21]>
net (float[N,16] x) => (float[N,24] y, float[N,8] z) {
  a = Gemm(x, w1, b1)
  r = Relu(a)
  m = MatMul(r, w2)
  b = Add(m, b2)
  s = Add(r, b)
  y = MatMul(s, w3)
  z = Gemm(s, w4, b4)
}
"""
SHAPES = {"w1": (16, 24), "b1": (24,), "w2": (24, 24), "b2": (24,), "w3": (24, 24), "w4": (24, 8),
          "b4": (8,)}  # fmt: skip


@pytest.fixture(scope="module")
def quantized():
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NET)
    for name, shape in SHAPES.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    data = {"x": rng.standard_normal((6, 16)).astype(np.float32)}
    steps = "collect{[histogram moments]} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn | correct_bias"
    return passes.run(ir.capture(model), steps, data=data), [data]


def test_every_layer_measures_as_the_graph_with_that_layer_freed(quantized):
    result, probes = quantized
    own = {site.node.name: site for site in linears(result.float_graph)}
    sites = [s for s in linears(result.graph) if ops.decode_of(s.weight) is not None]
    assert len(sites) == 4
    now, freed = WhatIf(result.float_graph, probes).measure(
        result.graph, [(site, own[site.node.name]) for site in sites]
    )
    reference = evaluate.outputs_of(result.float_graph, probes)

    def quality(graph) -> float:
        found = evaluate.sqnr(reference, evaluate.outputs_of(graph, probes))
        return float(np.mean(list(found.values())))

    assert now == pytest.approx(quality(result.graph), abs=1e-6)
    assert len(freed) == len(sites)
    for site in sites:
        copy = clone(result.graph)
        edit = Edit(copy)
        twin = next(s for s in linears(copy) if s.node.name == site.node.name)
        make_float(edit, twin, own[site.node.name])
        edit.finish()
        assert freed[site.node.name] == pytest.approx(quality(copy), abs=1e-3)
    assert len({round(db, 3) for db in (now, *freed.values())}) == 5
