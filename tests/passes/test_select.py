"""Selectors name layers by structure."""

import pytest

import ir
from ir.errors import PipelineError
from passes.select import depthwise, select, weight_count
from passes.sites import linears

NET = """graph g(%x: f32[n,4,6,6]) -> %y {
  %w0 : f32[4,4,3,3] = const seed:1
  %c0 : f32[n,4,4,4] = Conv(%x, %w0)
  %w1 : f32[4,1,1,1] = const seed:2
  %c1 : f32[n,4,4,4] = Conv(%c0, %w1) {group=4}
  %w2 : f32[4,2,1,1] = const seed:3
  %c2 : f32[n,4,4,4] = Conv(%c1, %w2) {group=2}
  %k  : i64[2] = const [-1, 4]
  %f  : f32[m,4] = Reshape(%c2, %k)
  %g  : f32[4] = const [1.0, 1.0, 1.0, 1.0]
  %l  : f32[m,4] = LayerNormalization(%f, %g) {axis=-1}
  %w3 : f32[4,8] = const seed:4
  %q  : f32[m,8] = MatMul(%l, %w3)
  %s  : f32[] = const 0.5
  %d  : f32[m,8] = Mul(%q, %s)
  %p  : f32[m,8] = Softmax(%d) {axis=-1}
  %w4 : f32[8,3] = const seed:5
  %b  : f32[3] = const seed:6
  %y  : f32[m,3] = Gemm(%p, %w4, %b)
}
"""


@pytest.fixture(scope="module")
def kernels():
    return [site.node for site in linears(ir.parse(NET))]


def names(text, kernels):
    chosen = select(text, kernels)
    return [node.outputs[0].name for node in kernels if id(node) in chosen]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("Conv", ["c0", "c1", "c2"]),
        ("Gemm", ["y"]),
        ("Einsum", []),
        ("!Conv", ["q", "y"]),
        ("depthwise", ["c1"]),
        ("Conv&!depthwise", ["c0", "c2"]),
        ("first", ["c0", "q", "y"]),
        ("last", ["c2", "q", "y"]),
        ("Conv&first", ["c0"]),
        ("last & Conv", ["c2"]),
        ("into:Softmax", ["q"]),
        ("into:LayerNormalization", ["c2"]),
        ("from:LayerNormalization", ["q"]),
        ("from:Softmax", ["y"]),
        ("from:Conv", ["c1", "c2"]),
        ("below:9", ["c1", "c2"]),
        ("below:28", ["c1", "c2", "y"]),
        ("below:27", ["c1", "c2"]),
        ("value:c?", ["c0", "c1", "c2"]),
        ("value:y", ["y"]),
        ("value:C*", []),
        ("!!Conv", ["c0", "c1", "c2"]),
    ],
)
def test_what_a_selector_names(selector, expected, kernels):
    assert names(selector, kernels) == expected


@pytest.mark.parametrize("selector", ["", "conv", "below:x", "below:", "near:Conv", "Conv&", "!"])
def test_unreadable_selectors(selector, kernels):
    with pytest.raises(PipelineError, match="cannot read the selector") as caught:
        select(selector, kernels)
    assert "into:OP" in caught.value.hint


def test_a_chain_longer_than_the_reach_does_not_count():
    lines = [f"%r{i} : f32[n,4] = Relu(%{f'r{i - 1}' if i else 'h'})" for i in range(20)]
    text = "\n".join([
        "graph g(%x: f32[n,4]) -> %y {", "%w : f32[4,4] = const seed:1",
        "%h : f32[n,4] = MatMul(%x, %w)", *lines, "%y : f32[n,4] = Softmax(%r19) {axis=-1}", "}",
    ])  # fmt: skip
    nodes = [site.node for site in linears(ir.parse(text))]
    assert len(nodes) == 1
    assert select("into:Softmax", nodes) == set()


def test_counting(kernels):
    assert [weight_count(node) for node in kernels] == [144, 4, 8, 32, 27]
    assert [depthwise(node) for node in kernels] == [False, True, False, False, False]
