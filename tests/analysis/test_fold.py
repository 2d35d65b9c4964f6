"""fold_scale against plain evaluation before and after; inject_outliers does what it says."""

import numpy as np
import pytest

import ir
import passes
from backends import reference
from ir.analysis.streams import streams
from ir.edit import Edit
from ir.fold import fold_scale, scale_refusal
from passes.equivalent.inject_outliers import draw

TRANSFORMER = """graph g(%x: f32[n,16]) -> %y {
  %gain : f32[16] = const seed:1
  %bias : f32[16] = const seed:2
  %up : f32[16,32] = const seed:3
  %b : f32[32] = const seed:4
  %down : f32[32,16] = const seed:5
  %gain2 : f32[16] = const seed:6
  %head : f32[8,16] = const seed:7
  %h : f32[n,16] = LayerNormalization(%x, %gain, %bias) {axis=-1}
  %u : f32[n,32] = MatMul(%h, %up)
  %ub : f32[n,32] = Add(%u, %b)
  %r : f32[n,32] = Relu(%ub)
  %d : f32[n,16] = MatMul(%r, %down)
  %s : f32[n,16] = Add(%x, %d)
  %k : f32[n,16] = RMSNormalization(%s, %gain2) {axis=-1}
  %y : f32[n,8] = Gemm(%k, %head) {transB=1}
}"""


def feeds():
    return {"x": np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)}


def output(graph):
    return reference.run(graph, feeds())["y"]


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("number", range(3))
def test_a_folded_scale_divides_the_stream_and_keeps_the_function(number):
    plain, graph = ir.parse(TRANSFORMER), ir.parse(TRANSFORMER)
    found = [s for s in streams(graph) if not s.blocked][number]
    channels = 32 if found.value.name == "r" else 16
    s = np.exp(np.random.default_rng(number).normal(size=channels))
    name = found.value.name
    fold_scale(found, s, Edit(graph, "test"))
    assert found.value.name != name  # it means something else now
    assert relative(output(graph), output(plain)) <= 1e-5
    watched = [ir.clone(g) for g in (plain, graph)]
    values = []
    for model, wanted in zip(watched, (name, found.value.name), strict=True):
        node = next(n for n in model.graph if n.outputs[0].name == wanted)
        model.graph.outputs.append(node.outputs[0])
        values.append(reference.run(model, feeds())[wanted])
    np.testing.assert_allclose(values[1], values[0] / s, rtol=1e-4, atol=1e-5)


def test_folds_of_neighbouring_streams_add_up():
    plain, graph = ir.parse(TRANSFORMER), ir.parse(TRANSFORMER)
    edit, rng = Edit(graph, "test"), np.random.default_rng(3)
    for found in [s for s in streams(graph) if not s.blocked]:  # %up reads one and writes the next
        fold_scale(found, np.exp(rng.normal(size=32 if found.value.name == "r" else 16)), edit)
    assert relative(output(graph), output(plain)) <= 1e-5


@pytest.mark.parametrize("s", [np.zeros(16), -np.ones(16), np.full(16, np.nan), np.ones(5)])
def test_a_scale_that_does_not_fit_is_refused(s):
    graph = ir.parse(TRANSFORMER)
    found = next(x for x in streams(graph) if not x.blocked)
    assert scale_refusal(found, s)
    with pytest.raises(ValueError, match=r"positive number|of its own"):
        fold_scale(found, s, Edit(graph, "test"))


def test_injected_outliers_keep_the_function_and_harm_w8a8():
    graph = ir.parse(TRANSFORMER)
    data = [feeds() for _ in range(2)]
    result = passes.run(graph, "inject_outliers", data=data)
    assert len(result.report.steps[0].sites) == 2
    assert relative(output(result.graph), output(graph)) <= 1e-5

    def decibels(model):
        coded = output(passes.run(model, "w8a8", data=data).graph)
        noise = np.square(coded - output(graph)).mean()
        return 10 * np.log10(np.square(output(graph)).mean() / noise)

    assert decibels(result.graph) < decibels(graph) - 6


def test_the_channels_are_drawn_without_repetition():
    s = draw(8, 3, 40.0, np.random.default_rng(0))
    assert sorted(s) == [1 / 40] * 3 + [1] * 5
    assert (draw(2, 3, 40.0, np.random.default_rng(0)) == 1 / 40).all()


ADAPTIVE = """graph g(%x: f32[n,16], %c: f32[n,4]) -> %y {
  %ones : f32[16] = const seed:1
  %wide : f32[4,48] = const seed:2
  %wide_bias : f32[48] = const seed:3
  %w : f32[16,8] = const seed:4
  %m : f32[n,48] = Gemm(%c, %wide, %wide_bias)
  %shift : f32[n,16], %scale : f32[n,16], %gate : f32[n,16] = Split(%m) {axis=-1, num_outputs=3}
  %h : f32[n,16] = LayerNormalization(%x, %ones) {axis=-1}
  %hs : f32[n,16] = Mul(%h, %scale)
  %ht : f32[n,16] = Add(%hs, %shift)
  %p : f32[n,8] = MatMul(%ht, %w)
  %g : f32[n,8] = Slice(%gate, %zero, %eight, %one)
  %zero : i64[1] = const [0]
  %eight : i64[1] = const [8]
  %one : i64[1] = const [1]
  %y : f32[n,8] = Mul(%p, %g)
}"""


def test_a_scale_goes_into_the_part_of_a_wide_layer_that_writes_the_stream():
    plain, graph = ir.parse(ADAPTIVE), ir.parse(ADAPTIVE)
    rng = np.random.default_rng(0)
    feed = {k: rng.normal(size=(6, n)).astype(np.float32) for k, n in (("x", 16), ("c", 4))}
    (stream,) = [s for s in streams(graph) if not s.blocked]
    s = np.exp(rng.normal(size=16))
    fold_scale(stream, s, Edit(graph, "test"))
    before, after = (reference.run(g, feed)["y"] for g in (plain, graph))
    assert relative(after, before) <= 1e-5
    wide = next(n for n in graph.graph if n.op_type == "Gemm").inputs[1]
    ratio = wide.const_value.numpy() / plain.graph.initializers["wide"].const_value.numpy()
    np.testing.assert_allclose(ratio[:, :16], np.tile(1 / s, (4, 1)), rtol=1e-5)
    assert (ratio[:, 16:] == 1).all()  # scale and gate are other channels
    names = {v.name for n in graph.graph for v in n.outputs}
    assert {"scale", "gate", "g", "p"} <= names  # they mean what they meant
    assert not {"shift", "ht", "hs", "m"} & names
