"""Plans say which values carry codes, and why the others do not."""

import numpy as np
import pytest

import ir
from ir import ops
from ir.qtype import QType
from passes.placement import (
    ACTIVATION,
    NO_RUNTIME_SCALE,
    WEIGHT,
    candidates,
    fused_output,
    plan,
)
from passes.sites import linears
from tests.helpers import CONVS, MLP, SMALL, apply, feeds


def decide(text, activation=ACTIVATION, weight=WEIGHT, **options):
    graph = ir.parse(text)
    return graph, plan(graph, SMALL, activation, weight, **options)


def coded(made):
    return {value.name: made.why[id(value)] for value in made.coded.values()}


def refused(made):
    return {node.outputs[0].name: reason for node, reason in made.refused}


def kernels(made):
    return [site.y.name for site, _ in made.kernels.values()]


def test_kernels_that_write_floats_need_codes_on_their_inputs_only():
    _, made = decide(MLP)
    assert coded(made) == {
        "x": "read by Gemm (MatMulInteger)", "r": "read by MatMul (MatMulInteger)"
    }  # fmt: skip
    assert made.integer == set()
    assert made.refused == []


def test_convolutions_write_codes_behind_their_activation():
    graph, made = decide(CONVS)
    assert coded(made) == {
        "x": "read by Conv (QLinearConv)",
        "r1": "written by Conv (QLinearConv)",
        "c2": "written by Conv (QLinearConv)",
        "s": "read by Conv (QLinearConv)",
        "c3": "written by Conv (QLinearConv)",
    }
    integer = {n.outputs[0].name for n in graph.graph if id(n) in made.integer}
    assert integer == {"c1", "c2", "c3", "s"}


def test_without_carriers_the_add_stays_float():
    graph, made = decide(CONVS, carriers=False)
    assert id(graph.graph.node("s")) not in made.integer
    assert "s" in coded(made), "the convolution behind it reads codes all the same"


def test_carriers_are_taken_in_only_between_integer_nodes():
    add = "%s  : f32[n,4,4,4] = Add(%c2, %r1)"
    floats = "%t : f32[n,4,4,4] = Tanh(%c2)\n%s : f32[n,4,4,4] = Add(%t, %r1)"
    graph, made = decide(CONVS.replace(add, floats))
    assert id(graph.graph.node("s")) not in made.integer, "one input is float"
    both = (
        "%p : f32[n,4,4,4] = MaxPool(%c2) {kernel_shape=[1, 1]}\n%s : f32[n,4,4,4] = Add(%p, %r1)"
    )
    graph, made = decide(CONVS.replace(add, both))
    assert {"p", "s"} <= {n.outputs[0].name for n in graph.graph if id(n) in made.integer}
    assert coded(made)["p"] == "MaxPool between integer nodes"
    unread = CONVS.replace("Conv(%s, %w3)", "Conv(%t, %w3)").replace(
        "  %w3", "  %t : f32[n,4,4,4] = Tanh(%s)\n  %w3"
    )
    graph, made = decide(unread)
    assert id(graph.graph.node("s")) not in made.integer, "only floats read it"
    assert "s" not in coded(made)


def test_a_layer_that_stays_float_is_no_carrier():
    graph, made = decide(CONVS, keep=["value:c2"])
    assert refused(made) == {"c2": "kept float by 'value:c2'"}
    assert id(graph.graph.node("s")) not in made.integer, "the kept layer writes floats"
    assert kernels(made) == ["c1", "c3"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [([], ["h", "m"]), (["first"], []), (["Gemm"], ["m"]), (["Gemm", "MatMul"], []),
     (["first&Gemm"], ["m"]), (["below:100"], ["h"])],
)  # fmt: skip
def test_selectors_keep_layers_float(keep, expected):
    _, made = decide(MLP, keep=keep)
    assert kernels(made) == expected
    assert len(made.refused) == 2 - len(expected)


def test_dynamic_codes_nothing_behind_a_kernel():
    _, made = decide(CONVS, dynamic=True)
    assert not coded(made)
    assert not made.kernels
    assert {reason for _, reason in made.light.values()} == {NO_RUNTIME_SCALE}
    _, made = decide(MLP, dynamic=True)
    assert made.kernels
    assert made.integer == set()


def test_weights_alone():
    graph, made = decide(CONVS, activation=None, weight=QType.parse("i8@0x1*f32"))
    assert kernels(made) == ["c1", "c2", "c3"]
    assert coded(made) == {}
    assert made.integer == set()
    assert graph is not None


def test_a_kernel_that_writes_codes_may_be_the_models_output():
    text = CONVS.replace("-> %y", "-> %y, %c3")
    _, made = decide(text)
    assert kernels(made) == ["c1", "c2", "c3"]
    result = apply(text, "collect | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn", 1)
    assert [v.name for v in result.graph.graph.outputs] == ["y", "c3"]
    assert ops.is_op(result.graph.graph.outputs[1].producer(), "Decode")
    assert 20 < result.report.sqnr["c3"] < 80


MASKED = """graph g(%x: f32[n,4], %m: bool[n,4]) -> %y {
  %low : f32[] = const -3.4e38
  %w : f32[4,4] = const seed:1
  %h : f32[n,4] = MatMul(%x, %w)
  %s : f32[n,4] = Where(%m, %h, %low)
  %e : f32[n,4] = MatMul(%s, %w)
  %p : f32[n,4] = Softmax(%s) {axis=-1}
  %y : f32[n,4] = Add(%e, %p)
}
"""


def test_masked_values_never_carry_codes():
    _, made = decide(MASKED)
    assert set(coded(made)) == {"x"}
    assert refused(made) == {"e": "its input carries attention-mask constants"}
    _, alone = decide(MASKED, activation=None)
    assert kernels(alone) == ["h", "e"], "weights have nothing to do with the mask"


def test_values_whose_range_is_not_known_stay_float():
    _, made = decide(CONVS, reached={"x", "r1"})
    assert kernels(made) == ["c1"]
    assert set(refused(made)) == {"c2", "c3"}
    assert "no calibration sample reached it" in refused(made)["c2"]


def test_what_the_target_refuses_carries_its_reason():
    class Picky(type(SMALL)):
        def supports(self, node, activation, weight):
            from backends.base import Verdict

            if node.op_type == "Gemm":
                return Verdict(False, reason="no Gemm today")
            return super().supports(node, activation, weight)

    graph = ir.parse(MLP)
    made = plan(graph, Picky(), ACTIVATION, WEIGHT)
    assert refused(made) == {"h": "no Gemm today"}
    assert coded(made) == {"r": "read by MatMul (MatMulInteger)"}
    assert [value.name for value in candidates(graph, Picky())] == ["r"]


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("%a : f32[n,4] = Relu(%h)", "a"),
        ("%low : f32[] = const 0.0\n%a : f32[n,4] = Clip(%h, %low)", "a"),
        ("%low : f32[] = const 1.0\n%a : f32[n,4] = Clip(%h, %low)", "h"),
        ("%high : f32[] = const 6.0\n%a : f32[n,4] = Clip(%h, _, %high)", "h"),
        ("%a : f32[n,4] = Tanh(%h)", "h"),
        ("%r : f32[n,4] = Relu(%h)\n%a : f32[n,4] = Add(%h, %r)", "h"),
    ],
)
def test_activations_that_a_kernel_absorbs(behind, expected):
    graph = ir.parse(
        "graph g(%x: f32[n,4]) -> %y {\n%w : f32[4,4] = const seed:1\n"
        f"%h : f32[n,4] = MatMul(%x, %w)\n{behind}\n%y : f32[n,4] = Neg(%a)\n}}"
    )
    assert fused_output(next(linears(graph)).y).name == expected


# what place makes of the plan ---------------------------------------------------------------------

W8A8 = "collect | place{w=i8@0x1*f32,a=u8@0*f32+u8}"


def test_ranges_that_an_op_defines_are_not_measured():
    text = """graph g(%x: f32[n,4]) -> %y {
      %p : f32[n,4] = Softmax(%x) {axis=-1}
      %w : f32[4,2] = const seed:1
      %y : f32[n,2] = MatMul(%p, %w)
    }"""
    graph = apply(text, W8A8, 2).graph
    scale, zero = ops.encode_of(graph.graph.node("y").inputs[0]).inputs[1:]
    assert float(scale.const_value.numpy()) == pytest.approx(1 / 255)
    assert int(zero.const_value.numpy()) == 0


BODIES = """graph g(%x: f32[n,4], %c: bool[]) -> %y {{
  %w : f32[4,4] = const seed:1
  {head}
  %y : f32[n,4] = {tail}
}}"""


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        ("", """If(%c) {
    then_branch=graph t() -> %a { %a : f32[n,4] = MatMul(%x, %w) },
    else_branch=graph e() -> %b { %b : f32[n,4] = MatMul(%x, %w) }
  }"""),
        ("%k : i64[] = const 3\n%go : bool[] = const true", """Loop(%k, %go, %x) {
    body=graph b(%i: i64[], %on: bool[], %h: f32[n,4]) -> %on, %n {
      %o : f32[n,4] = MatMul(%h, %w)
      %n : f32[n,4] = Tanh(%o)
    }
  }"""),
    ],
    ids=["If", "Loop"],
)  # fmt: skip
@pytest.mark.parametrize("dynamic", ["false", "true"])
def test_layers_in_bodies_are_coded_where_they_are(head, tail, dynamic):
    graph = ir.parse(BODIES.format(head=head, tail=tail))
    data = [{**batch, "c": np.array(i > 1)} for i, batch in enumerate(feeds(graph, 4))]
    result = apply(graph, f"{W8A8[:-1]},dynamic={dynamic}}} | rtn", data)
    assert 20 < result.report.sqnr["y"] < 80
    ir.verify(result.graph, ir.Stage.CODED)


def test_a_value_that_was_never_seen_is_an_error_with_a_remedy():
    from ir.errors import PassError

    with pytest.raises(PassError) as caught:
        apply(MLP, W8A8.replace("collect", "collect{moments}"), 1)
    assert str(caught.value) == (
        "step 2 'place': no range was collected for %x; put collect{histogram} before this step; "
        "the data must reach the value"
    )


def test_options_that_make_no_sense():
    from ir.errors import PipelineError

    for text in ("place", "place{w=i8@0x1*f32,dynamic=true}"):
        with pytest.raises(PipelineError, match=r"must be given|need a"):
            apply(MLP, text)
