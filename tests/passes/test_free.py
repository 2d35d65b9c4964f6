"""Layers made float: what they wrote as codes exists as floats again; groups to measure."""

import numpy as np
import onnx.parser

import ir
import passes
from backends.torch import Executor
from ir import ops
from ir.edit import Edit
from ir.graph import clone
from passes.precision.candidates import Layer, candidates
from passes.precision.free import float_weight, free_values, reads_codes
from passes.precision.measure import Measure
from passes.sites import WRITTEN, linear, linears

CONVS = """
<ir_version: 10, opset_import: ["": 21]>
g (float[B,8,6,6] x) => (float[B,8,6,6] y) {
    a = Conv<pads = [1,1,1,1]>(x, w0, b)
    r = Relu(a)
    c = Conv<pads = [1,1,1,1]>(r, w1, b)
    s = Sin(r)
    d = Add(c, s)
    y = Conv<pads = [1,1,1,1]>(d, w2, b)
}
"""
CODES = "collect{[histogram moments]} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn | correct_bias"


def model():
    rng = np.random.default_rng(0)
    text = onnx.parser.parse_model(CONVS)
    for name in ("w0", "w1", "w2"):
        data = rng.normal(size=(8, 8, 3, 3)).astype(np.float32) / 8
        text.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    bias = rng.normal(size=8).astype(np.float32)
    text.graph.initializer.append(onnx.numpy_helper.from_array(bias, "b"))
    return ir.capture(text)


def data():
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(2, 8, 6, 6)).astype(np.float32)} for _ in range(3)]


def coded():
    return passes.run(model(), CODES, data=data()).graph


def freed(graph, names, originals=None):
    copy = clone(graph)
    edit = Edit(copy)
    sites = [s for s in linears(copy) if ops.decode_of(s.weight) is not None]
    free_values(edit, copy, sites, names)
    for site in sites if originals else ():
        if site.y.name in names:
            float_weight(edit, linear(site.node), originals[site.y.name])
    edit.finish()
    return copy


def node(graph, op, output):
    return next(n for n in graph.graph if n.op_type == op and n.outputs[0].name == output)


def test_float_readers_of_a_freed_layer_read_its_floats():
    graph = coded()
    assert ops.decode_of(node(graph, "Sin", "s").inputs[0]) is not None
    done = freed(graph, {"a"})
    assert node(done, "Sin", "s").inputs[0].name == "r"
    assert ops.decode_of(node(done, "Conv", "c").inputs[0]) is not None
    encode = ops.encode_of(node(done, "Conv", "c").inputs[0])
    assert WRITTEN not in encode.metadata_props


def test_a_freed_layer_reads_codes_where_nothing_else_exists():
    done = freed(coded(), {"c"})
    assert reads_codes(linear(node(done, "Conv", "c")))
    both = freed(coded(), {"a", "c"})
    assert node(both, "Conv", "c").inputs[0].name == "r"
    assert not reads_codes(linear(node(both, "Conv", "c")))


def test_all_layers_freed_compute_what_the_float_model_does():
    graph, float_graph = coded(), model()
    originals = {s.y.name: s for s in linears(float_graph)}
    done = freed(graph, {"a", "c", "y"}, originals)
    feeds = data()[0]
    np.testing.assert_allclose(
        Executor(done).run(feeds)["y"], Executor(float_graph).run(feeds)["y"], rtol=1e-5, atol=1e-5
    )
    assert not any(ops.is_op(n, "Encode", "Decode") for n in done.graph)


def test_measuring_agrees_with_the_graph_itself():
    graph, float_graph, probes = coded(), model(), data()[:2]
    measure = Measure(graph, float_graph, probes)
    assert measure.macs == dict.fromkeys(("a", "c", "y"), 2 * 2 * 8 * 36 * 72)
    originals = {s.y.name: s for s in linears(float_graph)}
    for names in (set(), {"a"}, {"a", "c"}):
        done, signal, gap = freed(graph, names, originals), 0.0, 0.0
        for feeds in probes:
            wanted = Executor(float_graph).run(feeds)["y"].numpy()
            found = Executor(done).run(feeds)["y"].numpy()
            signal, gap = signal + np.square(wanted).sum(), gap + np.square(wanted - found).sum()
        assert abs(measure.db(names) - 10 * np.log10(signal / gap)) < 0.2
    assert measure.db({"a", "c"}) > measure.present


def test_candidates_fit_the_share_and_hold_prefixes():
    graph, float_graph = coded(), model()
    originals = {s.y.name: s for s in linears(float_graph)}
    found = [
        Layer(site, originals[site.y.name], share, db)
        for site, share, db in zip(linears(graph), (0.3, 0.3, 0.4), (30.0, 10.0, None), strict=True)
    ]
    groups = candidates(found, float_graph, 0.6, 1)
    assert groups[0] == {"c"}
    assert {"a"} in groups
    assert {"a", "c"} in groups
    assert all(len(group) < 3 for group in groups)
    assert {"a", "c"} not in candidates(found, float_graph, 0.5, 1)


def test_spare_frees_by_work_and_reports_the_rest():
    nothing = passes.run(model(), f"{CODES} | spare{{gain=100,share=1,enough=999}}", data=data())
    assert not nothing.report.steps[-1].sites
    assert any("less than 100" in skip.reason for skip in nothing.report.steps[-1].skips)
    done = passes.run(
        model(), f"{CODES} | spare{{gain=0.01,share=0.4,enough=999}}", data=data()
    ).report
    assert len(done.steps[-1].sites) == 1
    assert done.steps[-1].sqnr["y"] > done.steps[-2].sqnr["y"]
