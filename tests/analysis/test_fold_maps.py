"""fold_shift and fold_permute in double precision against plain evaluation before and after."""

import numpy as np
import pytest

import ir
from backends import reference
from ir.analysis.streams import streams
from ir.edit import Edit
from ir.fold import fold_permute, fold_shift, permute_refusal, shift_refusal

LAYERS = """graph g(%x: f64[n,16]) -> %y {
  %gain : f64[16] = const seed:1
  %bias : f64[16] = const seed:2
  %up : f64[16,32] = const seed:3
  %b : f64[32] = const seed:4
  %b2 : f64[32] = const seed:8
  %down : f64[32,16] = const seed:5
  %c : f64[1,16] = const seed:6
  %head : f64[8,16] = const seed:7
  %h : f64[n,16] = LayerNormalization(%x, %gain, %bias) {axis=-1}
  %u : f64[n,32] = MatMul(%h, %up)
  %ub : f64[n,32] = Add(%u, %b)
  %uc : f64[n,32] = Add(%ub, %b2)
  %d : f64[n,16] = Gemm(%uc, %down, %c) {alpha=0.5, beta=3.0}
  %y : f64[n,8] = Gemm(%d, %head) {transB=1, alpha=2.0, beta=0.25}
}"""
CONVS = """graph g(%x: f64[n,3,8,8]) -> %y {
  %a : f64[4,3,3,3] = const seed:1
  %ab : f64[4] = const seed:2
  %d : f64[4,1,3,3] = const seed:3
  %db : f64[4] = const seed:6
  %w : f64[5,4,3,3] = const seed:4
  %wb : f64[5] = const seed:5
  %p : f64[n,4,8,8] = Conv(%x, %a, %ab) {pads=[1,1,1,1]}
  %q : f64[n,4,6,6] = Conv(%p, %d, %db) {group=4}
  %y : f64[n,5,PAD,PAD] = Conv(%q, %w, %wb) {pads=[PADS]}
}"""
VALID = CONVS.replace("PADS", "0,0,0,0").replace("PAD", "4")
PADDED = CONVS.replace("PADS", "1,1,1,1").replace("PAD", "6")


def values(graph, names):
    rng = np.random.default_rng(0)
    shape = [6 if not isinstance(n, int) else n for n in graph.graph.inputs[0].shape]
    watched = ir.clone(graph)
    found = {v.name: v for n in watched.graph for v in n.outputs}
    watched.graph.outputs.extend(found[n] for n in names if n != "y")
    return reference.run(watched, {"x": rng.normal(size=shape)})


def cases(text, kind):
    graph = ir.parse(text)
    return [i for i, s in enumerate(streams(graph)) if kind in s.maps]


def channels(stream):
    return int(stream.value.shape[stream.axis])


@pytest.mark.parametrize(("text", "wanted"), [(LAYERS, [0, 1, 2]), (VALID, [1, 2]), (PADDED, [1])])
def test_a_shift_moves_through_the_readers_into_their_biases(text, wanted):
    assert cases(text, "shift") == wanted
    for number in wanted:
        plain, graph = ir.parse(text), ir.parse(text)
        stream = streams(graph)[number]
        name, z = stream.value.name, np.random.default_rng(number).normal(size=channels(stream))
        fold_shift(stream, z, Edit(graph, "test"))
        ir.verify(graph)
        old, new = values(plain, [name, "y"]), values(graph, [stream.value.name, "y"])
        assert stream.value.name != name
        shape = [-1 if i == stream.axis else 1 for i in range(old[name].ndim)]
        moved = old[name] - z.reshape(shape)
        np.testing.assert_allclose(new[stream.value.name], moved, atol=1e-12)
        assert np.abs(new["y"] - old["y"]).max() <= 1e-10 * np.abs(old["y"]).max()
        assert np.abs(old["y"]).max() > 0.1


def test_values_in_front_of_the_bias_that_takes_a_shift_keep_their_meaning_and_name():
    plain, graph = ir.parse(LAYERS), ir.parse(LAYERS)
    fold_shift(streams(graph)[1], np.ones(32), Edit(graph, "test"))
    assert [v.name for n in graph.graph for v in n.outputs] == [
        "h", "u", "ub.shifted", "uc.shifted", "d", "y"
    ]  # fmt: skip
    np.testing.assert_array_equal(values(graph, ["u"])["u"], values(plain, ["u"])["u"])
    assert (graph.graph.initializers["b2"].const_value.numpy()
            == plain.graph.initializers["b2"].const_value.numpy()).all()  # fmt: skip


def test_a_bias_is_made_for_a_matmul_that_has_none_and_its_name_means_what_it_meant():
    text = LAYERS.replace("Add(%u, %b)", "Relu(%u)")
    plain, graph = ir.parse(text), ir.parse(text)
    fold_shift(streams(graph)[0], np.linspace(-1, 1, 16), Edit(graph, "test"))
    assert [n.op_type for n in graph.graph][:4] == ["LayerNormalization", "MatMul", "Add", "Relu"]
    old, new = values(plain, ["u", "y"]), values(graph, ["u", "y"])
    for name in ("u", "y"):
        np.testing.assert_allclose(new[name], old[name], rtol=1e-10)


def test_folds_of_neighbouring_streams_add_up():
    plain, graph = ir.parse(LAYERS), ir.parse(LAYERS)
    edit, rng = Edit(graph, "test"), np.random.default_rng(1)
    for stream in streams(graph):
        if "shift" in stream.maps:
            fold_shift(stream, rng.normal(size=channels(stream)), edit)
        if "permute" in stream.maps:
            fold_permute(stream, rng.permutation(channels(stream)), edit)
    old, new = values(plain, ["y"])["y"], values(graph, ["y"])["y"]
    assert np.abs(new - old).max() <= 1e-10 * np.abs(old).max()


@pytest.mark.parametrize(("text", "wanted"), [(LAYERS, [1, 2]), (VALID, []), (PADDED, [])])
def test_a_permuted_stream_holds_the_old_channels_in_the_new_order(text, wanted):
    assert cases(text, "permute") == wanted
    for number in wanted:
        plain, graph = ir.parse(text), ir.parse(text)
        stream = streams(graph)[number]
        name = stream.value.name
        order = np.random.default_rng(number).permutation(channels(stream))
        fold_permute(stream, order, Edit(graph, "test"))
        old, new = values(plain, [name, "y"]), values(graph, [stream.value.name, "y"])
        np.testing.assert_array_equal(
            new[stream.value.name], np.take(old[name], order, stream.axis)
        )
        assert np.abs(new["y"] - old["y"]).max() <= 1e-10 * np.abs(old["y"]).max()


def test_what_does_not_fit_is_refused():
    graph = ir.parse(LAYERS)
    norm, up, _ = streams(graph)
    edit = Edit(graph, "test")
    for z in (np.ones(5), np.full(16, np.inf), np.ones((1, 16))):
        assert shift_refusal(norm, z)
        with pytest.raises(ValueError, match=r"one finite number|of its own"):
            fold_shift(norm, z, edit)
    for order in (np.zeros(32, int), np.arange(31), np.arange(32) + 1):
        assert permute_refusal(up, order)
        with pytest.raises(ValueError, match=r"every channel once|of its own"):
            fold_permute(up, order, edit)
    assert permute_refusal(norm, np.arange(16)) == "its channels cannot be permuted"
    assert not edit.changes
