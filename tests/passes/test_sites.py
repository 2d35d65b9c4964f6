"""Linear layers, their axes, their biases, and the way back to floats."""

import pytest

import ir
from ir import ops
from ir.edit import Edit
from ir.errors import PipelineError
from ir.qtype import QType
from passes.sites import bias_of, decodes_of, linears
from tests.helpers import MLP, apply


def graph(body, inputs="%x: f32[n,4]", outputs="%y"):
    return ir.parse(f"graph g({inputs}) -> {outputs} {{\n{body}\n}}\n")


def only(body, **options):
    (site,) = linears(graph(body, **options))
    return site


CONV = "%x: f32[n,4,5,5]"
LAYOUTS = [
    ("%w : f32[4,3] = const seed:1\n%y : f32[n,3] = MatMul(%x, %w)", {}, (0,), 1),
    ("%w : f32[4,3] = const seed:1\n%y : f32[n,3] = Gemm(%x, %w)", {}, (0,), 1),
    ("%w : f32[3,4] = const seed:1\n%y : f32[n,3] = Gemm(%x, %w) {transB=1}", {}, (1,), 0),
    ("%w : f32[2,4,3] = const seed:1\n%y : f32[2,5,3] = MatMul(%x, %w)",
     {"inputs": "%x: f32[2,5,4]"}, (1,), 2),
    ("%w : f32[6,4,3,3] = const seed:1\n%y : f32[n,6,3,3] = Conv(%x, %w)", {"inputs": CONV},
     (1, 2, 3), 0),
    ("%w : f32[6,2,3] = const seed:1\n%y : f32[n,6,3] = Conv(%x, %w) {group=2}",
     {"inputs": "%x: f32[n,4,5]"}, (1, 2), 0),
]  # fmt: skip


@pytest.mark.parametrize(("body", "where", "inputs", "output"), LAYOUTS)
def test_layouts(body, where, inputs, output):
    site = only(body, **where)
    assert (site.inputs, site.output) == (inputs, output)
    assert site.channel_axis == (1 if site.node.op_type == "Conv" else -1)
    assert (site.x.name, site.weight.name, site.y.name) == ("x", "w", "y")


@pytest.mark.parametrize(("body", "where", "inputs", "output"), LAYOUTS)
def test_a_scale_per_output_covers_exactly_what_an_output_sums_over(body, where, inputs, output):
    """i8@0x1: one scale for every index of the output (and batch) axis, none along the inputs."""
    site = only(body, **where)
    shape = site.weight.const_value.shape.numpy()
    found = site.qtype(QType.parse("i8@0x1*f32")).scale_shape(shape)
    assert found == tuple(1 if axis in inputs else size for axis, size in enumerate(shape))
    assert site.qtype(QType.parse("i8@0*f32")) == QType.parse("i8@0*f32")
    ones = site.qtype(QType.parse("i8@1x0*f32")).scale_shape(shape)
    assert ones == tuple(1 if axis == output else size for axis, size in enumerate(shape))


def test_groups_lie_along_the_inputs():
    pattern = QType.parse("u4@2x1*f16+u4")
    assert str(only(LAYOUTS[0][0]).qtype(pattern)) == "u4@2x1*f16+u4"
    assert str(only(LAYOUTS[2][0]).qtype(pattern)) == "u4@1x2*f16+u4"
    assert str(only(LAYOUTS[3][0], **LAYOUTS[3][1]).qtype(pattern)) == "u4@1x2x1*f16+u4"
    assert only(LAYOUTS[0][0]).misfit(pattern) == ""
    with pytest.raises(PipelineError, match="must be written for a K x N matrix"):
        only(LAYOUTS[0][0]).qtype(QType.parse("i8@1x0x0*f32"))


def test_groups_of_a_convolution_lie_along_its_input_channels():
    """Each place of the window by itself; of channels that fill less than half a group, none."""
    body = "%w : f32[6,16,3,3] = const seed:1\n%y : f32[n,6,7,7] = Conv(%x, %w)"
    site = only(body, inputs="%x: f32[n,16,9,9]")
    for along, block in ((8, "1x8x1x1"), (32, "1x32x1x1"), (33, "1x0x0x0"), (0, "1x0x0x0")):
        assert str(site.qtype(QType.parse(f"u4@{along}x1*f16+u4"))) == f"u4@{block}*f16+u4"
    found = site.qtype(QType.parse("u4@8x1*f16+u4"))
    assert found.scale_shape((6, 16, 3, 3)) == (6, 2, 3, 3)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("%y : f32[n,4] = MatMul(%x, %z)", {"inputs": "%x: f32[n,4], %z: f32[4,4]"}),
        ("%w : f32[4] = const seed:1\n%y : f32[n] = MatMul(%x, %w)", {}),
        ("%w : i32[4,3] = const [1,2,3,4,5,6,7,8,9,1,2,3]\n%y : i32[n,3] = MatMul(%x, %w)",
         {"inputs": "%x: i32[n,4]"}),
        ("%w : f32[4,3] = const seed:1\n%y : f32[n,3] = Gemm(%x, %w) {alpha=0.5}", {}),
        ("%w : f32[4,3] = const seed:1\n%y : f32[n,3] = Gemm(%x, %w) {transA=1}",
         {"inputs": "%x: f32[4,n]"}),
        ("%v : f32[2,4] = const seed:1\n%w : f32[4,3] = const seed:2\n"
         "%y : f32[2,3] = MatMul(%v, %w)", {"inputs": "%x: f32[1]"}),
    ],
)  # fmt: skip
def test_what_is_no_linear_layer(body, where):
    assert list(linears(graph(body, **where))) == []


def test_layers_in_bodies_are_found():
    body = """%w : f32[4,4] = const seed:1
    %y : f32[n,4] = If(%c) {
      then_branch=graph t() -> %a { %a : f32[n,4] = MatMul(%x, %w) },
      else_branch=graph e() -> %b { %b : f32[n,4] = Relu(%x) }
    }"""
    (site,) = linears(graph(body, inputs="%x: f32[n,4], %c: bool"))
    assert site.y.name == "a"


# biases -------------------------------------------------------------------------------------------

W = "%w : f32[4,3] = const seed:1\n"


@pytest.mark.parametrize(
    ("body", "where", "expected"),
    [
        (W + "%b : f32[3] = const seed:2\n%y : f32[n,3] = Gemm(%x, %w, %b)", {}, ("Gemm", 2)),
        (W + "%b : f32[1,3] = const seed:2\n%y : f32[n,3] = Gemm(%x, %w, %b)", {}, ("Gemm", 2)),
        (W + "%b : f32[3] = const seed:2\n%y : f32[n,3] = Gemm(%x, %w, %b) {beta=2.0}", {}, None),
        (W + "%b : f32[] = const 1.0\n%y : f32[n,3] = Gemm(%x, %w, %b)", {}, None),
        (W + "%b : f32[3,1] = const seed:2\n%y : f32[3,3] = Gemm(%x, %w, %b)",
         {"inputs": "%x: f32[3,4]"}, None),
        (W + "%y : f32[n,3] = Gemm(%x, %w, %b)", {"inputs": "%x: f32[n,4], %b: f32[3]"}, None),
        (W + "%y : f32[n,3] = Gemm(%x, %w)", {}, None),
        (W + "%b : f32[3] = const seed:2\n%h : f32[n,3] = MatMul(%x, %w)\n"
         "%y : f32[n,3] = Add(%h, %b)", {}, ("Add", 1)),
        (W + "%b : f32[3] = const seed:2\n%h : f32[n,3] = MatMul(%x, %w)\n"
         "%y : f32[n,3] = Add(%b, %h)", {}, ("Add", 0)),
        (W + "%b : f32[] = const 1.0\n%h : f32[n,3] = MatMul(%x, %w)\n"
         "%y : f32[n,3] = Add(%h, %b)", {}, None),
        (W + "%h : f32[n,3] = MatMul(%x, %w)\n%y : f32[n,3] = Add(%h, %h)", {}, None),
        (W + "%b : f32[3] = const seed:2\n%h : f32[n,3] = MatMul(%x, %w)\n"
         "%y : f32[n,3] = Sub(%h, %b)", {}, None),
        (W + "%b : f32[3] = const seed:2\n%h : f32[n,3] = MatMul(%x, %w)\n"
         "%y : f32[n,3] = Add(%h, %b)", {"outputs": "%y, %h"}, None),
        ("%w : f32[6,4,3,3] = const seed:1\n%b : f32[6] = const seed:2\n"
         "%y : f32[n,6,3,3] = Conv(%x, %w, %b)", {"inputs": CONV}, ("Conv", 2)),
        ("%w : f32[6,4,3,3] = const seed:1\n%y : f32[n,6,3,3] = Conv(%x, %w)", {"inputs": CONV},
         None),
    ],
)  # fmt: skip
def test_where_a_bias_is(body, where, expected):
    found = bias_of(only(body, **where))
    assert (found and (found[0].op_type, found[1])) == expected


# back to floats -----------------------------------------------------------------------------------


def test_decodes_of_an_encode():
    coded = apply(MLP, "collect | place{w=i8@0x1*f32,a=u8@0*f32+u8}", 2).graph
    encodes = [node for node in coded.graph if ops.is_op(node, "Encode")]
    assert len(encodes) == 4
    for encode in encodes:
        (decode,) = decodes_of(encode)
        assert ops.is_op(decode, "Decode")
    edit = Edit(coded)
    edit.node("Identity", [encodes[0].outputs[0]], like="moved", after=encodes[0])
    assert decodes_of(encodes[0]) is None
