"""center and rotate on small graphs and captured models: sites, exactness, forgotten ports."""

from dataclasses import replace

import numpy as np
import pytest

import ir
import passes
from ir.analysis.rotations import attention_streams, residual_streams
from ir.edit import Edit
from ir.errors import VerifyError
from ir.fold import matrix as fold_matrix
from passes.equivalent import rotate
from passes.equivalent.rotate import random_orthogonal
from passes.evaluate import difference, outputs_of, same_function
from passes.loop import Check
from tests.helpers import TINY, apply, feeds, tiny_graph
from tests.models import reference

DECODER = """graph g(%ids: i64[n,3], %tokens: i64[n,5]) -> %y {
  %source : f32[7,8] = const seed:1
  %in : f32[n,5,8] = Gather(%source, %tokens) {axis=0}
  %one : f32[8] = const [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
  %n0 : f32[n,5,8] = RMSNormalization(%in, %one) {axis=-1}
  %we : f32[8,8] = const seed:2
  %e : f32[n,5,8] = MatMul(%n0, %we)
  %encoded : f32[n,5,8] = Add(%in, %e)
  %memory : f32[n,5,8] = RMSNormalization(%encoded, %one) {axis=-1}
  %table : f32[7,8] = const seed:3
  %x : f32[n,3,8] = Gather(%table, %ids) {axis=0}
  %n1 : f32[n,3,8] = RMSNormalization(%x, %one) {axis=-1}
  %wq : f32[8,4] = const seed:4
  %q : f32[n,3,4] = MatMul(%n1, %wq)
  %wk : f32[8,4] = const seed:5
  %k : f32[n,5,4] = MatMul(%memory, %wk)
  %wv : f32[8,4] = const seed:6
  %v : f32[n,5,4] = MatMul(%memory, %wv)
  %kt : f32[n,4,5] = Transpose(%k) {perm=[0, 2, 1]}
  %l : f32[n,3,5] = MatMul(%q, %kt)
  %p : f32[n,3,5] = Softmax(%l) {axis=-1}
  %a : f32[n,3,4] = MatMul(%p, %v)
  %wo : f32[4,8] = const seed:7
  %o : f32[n,3,8] = MatMul(%a, %wo)
  %bo : f32[8] = const seed:8
  %ob : f32[n,3,8] = Add(%o, %bo)
  %s : f32[n,3,8] = Add(%x, %ob)
  %n2 : f32[n,3,8] = RMSNormalization(%s, %one) {axis=-1}
  %wk2 : f32[8,8] = const seed:9
  %m2 : f32[n,5,8] = MatMul(%memory, %wk2)
  %middle : i64[1] = const [1]
  %mean : f32[n,1,8] = ReduceMean(%m2, %middle) {keepdims=1}
  %wo2 : f32[8,8] = const seed:10
  %mean2 : f32[n,1,8] = MatMul(%mean, %wo2)
  %g2 : f32[n,3,8] = Add(%n2, %mean2)
  %w3 : f32[8,8] = const seed:11
  %ob2 : f32[n,3,8] = MatMul(%g2, %w3)
  %s2 : f32[n,3,8] = Add(%s, %ob2)
  %n3 : f32[n,3,8] = RMSNormalization(%s2, %one) {axis=-1}
  %head : f32[8,7] = const seed:12
  %y : f32[n,3,7] = MatMul(%n3, %head)
}"""
"""An encoder whose output two blocks of a decoder read, by three layers."""

STACKED = """graph g(%x: f32[n,5,8]) -> %y {
  %w : f32[8,24] = const seed:1
  %m : f32[n,5,24] = MatMul(%x, %w)
  %b : f32[24] = const seed:2
  %qkv : f32[n,5,24] = Add(%m, %b)
  %apart : i64[5] = const [0, 5, 3, 2, 4]
  %r : f32[n,5,3,2,4] = Reshape(%qkv, %apart)
  %t : f32[3,n,2,5,4] = Transpose(%r) {perm=[2, 0, 3, 1, 4]}
  %i0 : i64[] = const 0
  %i1 : i64[] = const 1
  %i2 : i64[] = const 2
  %q : f32[n,2,5,4] = Gather(%t, %i0) {axis=0}
  %k : f32[n,2,5,4] = Gather(%t, %i1) {axis=0}
  %v : f32[n,2,5,4] = Gather(%t, %i2) {axis=0}
  %kt : f32[n,2,4,5] = Transpose(%k) {perm=[0, 1, 3, 2]}
  %l : f32[n,2,5,5] = MatMul(%q, %kt)
  %p : f32[n,2,5,5] = Softmax(%l) {axis=-1}
  %a : f32[n,2,5,4] = MatMul(%p, %v)
  %back : f32[n,5,2,4] = Transpose(%a) {perm=[0, 2, 1, 3]}
  %wide : i64[3] = const [0, 5, 8]
  %c : f32[n,5,8] = Reshape(%back, %wide)
  %wo : f32[8,8] = const seed:3
  %y : f32[n,5,8] = MatMul(%c, %wo)
}"""
"""Attention whose q, k and v are rows of one stacked tensor."""


def ports(stream):
    return [sorted({str(p.node.inputs[p.index].name) for p in each}) for each in
            (stream.writers, stream.readers)]  # fmt: skip


def test_an_encoder_read_by_several_layers_is_a_stream_of_its_own():
    graph = ir.parse(DECODER)
    found = [s for s in residual_streams(graph) if not s.blocked]
    assert [ports(s) for s in found] == [
        [["bo", "table", "w3", "wo", "wo2"], ["head", "w3", "wq"]],
        [["source", "we"], ["we", "wk", "wk2", "wv"]],
    ]
    result = apply(graph, "rotate{hadamard=false}", 2, check=Check.EACH)
    assert len(result.report.steps[0].sites) == 3  # both streams, and the values of the attention
    assert result.report.steps[0].difference <= 1e-5


def test_stacked_q_k_and_v_turn_together():
    graph = ir.parse(STACKED)
    (stream,) = attention_streams(graph)
    assert stream.blocked is None
    assert [node.outputs[0].name for node in stream.pairs] == ["l"]
    assert ports(stream) == [["b", "w"], ["wo"]]
    apply(graph, "rotate{hadamard=false}", 2, check=Check.EACH)


def test_a_product_with_something_that_is_not_turned_is_refused():
    text = STACKED.replace("MatMul(%q, %kt)", "MatMul(%z, %kt)").replace(
        "g(%x: f32[n,5,8])", "g(%x: f32[n,5,8], %z: f32[n,2,5,4])"
    )
    (stream,) = attention_streams(ir.parse(text))
    assert stream.blocked
    assert "contracts the channels with others" in stream.blocked


FORGET = [("rotate", DECODER, i) for i in range(16)] + [("rotate", STACKED, i) for i in range(3)]


@pytest.mark.parametrize(("name", "text", "index"), FORGET)
def test_a_forgotten_writer_or_reader_is_caught(monkeypatch, name, text, index):
    """Every port of every stream in turn."""
    fold, count = fold_matrix.fold_maps, 0

    def forgetful(found, edit, mark):
        nonlocal count
        every = [(i, side, p) for i, (s, _) in enumerate(found)
                 for side in ("writers", "readers") for p in getattr(s, side)]  # fmt: skip
        count = len(every)
        which, side, port = every[index]
        stream, each = found[which]
        kept = tuple(p for p in getattr(stream, side) if p is not port)
        found[which] = (replace(stream, **{side: kept}), each)
        fold(found, edit, mark)

    monkeypatch.setattr(rotate, "fold_maps", forgetful)
    with pytest.raises(VerifyError, match="claims EXACT but moved output"):
        apply(ir.parse(text), name, 2)
    assert count == sum(t is text for _, t, _ in FORGET)


def test_a_random_orthogonal_matrix_is_one_and_differs_from_draw_to_draw():
    rng = np.random.default_rng(0)
    a, b = random_orthogonal(24, rng), random_orthogonal(24, rng)
    np.testing.assert_allclose(a @ a.T, np.eye(24), atol=1e-12)
    assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("hadamard", ["true", "false"])
def test_a_rotation_spreads_an_outlying_channel(hadamard):
    """Of a decoder whose table has one channel 100 times as large, no channel stands out after."""
    graph = ir.parse(DECODER)
    table = graph.graph.initializers["table"]
    numbers = table.const_value.numpy() * np.where(np.arange(8) == 3, 100, 1).astype(np.float32)
    Edit(graph).retensor(table, numbers)
    result = apply(graph, f"rotate{{hadamard={hadamard}}}", 1)
    turned = result.graph.graph.initializers["table.turned"].const_value.numpy()

    def spread(w):
        power = np.square(w).sum(axis=0)
        return power.max() / power.mean()

    assert spread(numbers) > 7.9  # of 8: all power in one channel
    assert spread(turned) < 4


@pytest.mark.parametrize(
    ("name", "folded", "centred", "turned"),
    [
        # 2 layers: 5 norms; the residual stream and 2 attentions of 4 heads over 2
        ("llama", 5, 0, 3),
        # its stream comes from the graph's input and is its output; one attention
        ("attention", 2, 0, 1),
    ],
)
def test_tiny_models_turn(name, folded, centred, turned):
    graph = passes.run(tiny_graph(name), "clean").graph
    result = apply(graph, "fold_norm | center | rotate", TINY[name].calibration(2))
    assert [len(s.sites) for s in result.report.steps] == [folded, centred, turned]
    found = TINY[name].evaluation(2)
    assert difference(outputs_of(graph, found), outputs_of(result.graph, found)).relative < 1e-5


def test_what_comes_in_and_goes_out_may_be_turned_online():
    graph = passes.run(tiny_graph("attention"), "clean").graph
    data = TINY["attention"].calibration(2)
    few = apply(graph, "rotate{online=2}", data)
    assert [(s.site, s.reason) for s in few.report.steps[0].skips] == [
        ("%tokens", "%tokens comes from outside (first of 3 such places)")
    ]
    # the input turned once for the sum; the second norm and the output turned back
    result = apply(graph, "rotate{online=3}", data, check=Check.EACH)
    assert len(result.report.steps[0].sites) == 2
    count = [sum(n.op_type == "MatMul" for n in g.graph) for g in (graph, result.graph)]
    assert count[1] - count[0] == 3
    assert [v.name for v in result.graph.graph.outputs] == [v.name for v in graph.graph.outputs]


@pytest.mark.parametrize(
    ("name", "pipeline", "sites"),
    [
        # L = 4: 9 norms; the residual stream, 4 attentions
        ("fashion_vit", "fold_norm | center | rotate", [9, 9, 5]),
        # L = 6; its last norm is read behind the choice of a token
        ("digits_vit", "fold_norm | center | rotate", [13, 13, 7]),
        # adaptive norms and gates: only the 4 attentions
        ("dit", "fold_norm | center | rotate", [0, 0, 4]),
        # post-norm: the embeddings' sum alone is centred; 6 attentions
        pytest.param("minilm", "fold_norm | center | rotate", [0, 1, 6], marks=pytest.mark.slow),
        # two convolutions and a Gelu write the stream, the last norm is the output: 4 attentions
        pytest.param("whisper_encoder", "fold_norm | center | rotate", [8, 0, 4],
                     marks=pytest.mark.slow),
        pytest.param("whisper_encoder", "fold_norm | center{online=1} | rotate{online=2}",
                     [8, 9, 5], marks=pytest.mark.slow),
        # its values come from caches and go out to them: the residual stream alone
        pytest.param("whisper_decoder", "fold_norm | center | rotate", [13, 13, 1],
                     marks=pytest.mark.slow),
        pytest.param("smollm2_off_grid", "fold_norm | center | rotate", [61, 0, 1],
                     marks=pytest.mark.slow),
        # no cache: the residual stream and 24 attentions
        pytest.param("big24", "fold_norm | center | rotate", [49, 0, 25], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_captured_models_turn(name, pipeline, sites):
    graph = reference.cleaned(name)
    data = reference.drawn(name)[:1]
    result = passes.run(graph, pipeline, check=Check.NONE)
    assert [len(s.sites) for s in result.report.steps] == sites
    assert all(s.reason for step in result.report.steps for s in step.skips)
    found = difference(outputs_of(graph, data), outputs_of(result.graph, data))
    assert found.relative <= 1e-5 or same_function(graph, result.graph, data).relative <= 1e-5


def test_rotations_differ_by_seed_and_repeat():
    graph = ir.parse(DECODER)
    data = feeds(graph, 1)
    texts = [ir.show(passes.run(graph, "rotate", data=data, seed=s).graph) for s in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
