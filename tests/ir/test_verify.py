"""Every rule of a stage has a graph that breaks it, and the message names place, cause and remedy."""

# ruff: noqa: E501 (graph texts have one line a value)

import numpy as np
import onnx_ir
import pytest

import ir
from ir import ops
from ir.errors import VerifyError
from ir.verify import Stage, stage_of, verify
from tests.work import calls, exponent

GOOD = """\
graph good(%x: f32[n,4], %c: bool[]) -> %y, %zq {
  %wq : i8@0x1*f32[4,3] = const [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
  %s : f32[1,3] = const [0.1, 0.2, 0.3]
  %w : f32[4,3] = quant.Decode(%wq, %s)
  %h : f32[n,3] = MatMul(%x, %w)
  %hs : f32[], %hz : u8[] = quant.Scale{u8@0*f32+u8}(%h)
  %hq : u8@0*f32+u8[n,3] = quant.Encode(%h, %hs, %hz)
  %hr : u8@0*f32+u8[3,n] = Transpose(%hq)
  %i : i64[1] = const [0]
  %zq : u8@0*f32+u8[1,n] = Gather(%hr, %i)
  %z : f32[3,n] = quant.Decode(%hr, %hs, %hz)
  %one : f32[] = const 1.0
  %y : f32[3,n] = If(%c) {
    then_branch=graph then() -> %a { %a : f32[3,n] = Add(%z, %one) }
    else_branch=graph els() -> %b { %b : f32[3,n] = Clip(%z, _, %one) }
  }
}
function my.F(%a, alpha) -> %b { %b = LeakyRelu(%a) {alpha=ref alpha float} }
"""


def test_a_graph_that_keeps_every_rule_passes():
    model = ir.parse(GOOD)
    verify(model)
    verify(model, Stage.CODED)
    assert stage_of(model) is Stage.CODED
    plain = ir.parse("graph g(%x: f32[2]) -> %y { %y : f32[2] = Relu(%x) }")
    verify(plain, Stage.FLOAT)
    assert stage_of(plain) is Stage.FLOAT


WRONG = {
    # signatures
    "Rleu(%x)": "op 'Rleu' is not in opset 25",
    "Upsample(%x, %x)": "op 'Upsample' is not in opset 25",
    "Relu(%x, %x)": "expected 1 inputs, found 2",
    "Add(%x)": "expected 2 inputs, found 1",
    "Add(%x, _)": "input 'B' is required, found none",
    "Relu(%x) {alpha=1}": "no attribute 'alpha', expected one of []",
    "Softmax(%x) {axis=1.0}": "attribute 'axis' must be of kind INT, found FLOAT",
    "Cast(%x)": "attribute 'to' is required",
    "Add(%x, %i)": "input 'B' (%i) is tensor(int64), expected tensor(float) as of %x",
    "Not(%x)": "input 'X' (%x) is tensor(float), expected one of ['tensor(bool)']",
    "Shape(%x)": "output 'shape' (%y) is tensor(float), expected one of ['tensor(int64)']",
    "my.Gone(%x)": "domain 'gone' has no opset import",
    "my.F(%x, %x)": "expected 0 to 1 inputs, found 2",
    "my.F(%x) {beta=1.0}": "attribute 'beta' is not one of ['alpha']",
    # codes
    "quant.Encode{u8@0*f32+u8}(%x, %s)": "has 3 inputs and 1 outputs, found 2 and 1",
    "quant.Encode{u8@0*f32}(%x, %s)": "codes %y of type FLOAT, expected UINT8",
    "quant.Decode{i8@0*f32}(%x, %s)": "codes %x of type FLOAT, expected INT8",
    "quant.Decode{i8@0*f32}(%q, %i)": "scale or zero point %i of type INT64, expected FLOAT",
    "quant.Decode{i8@0x1*f32}(%q, %s)": "scale or zero point %s has shape [], expected [1,4] for i8@0x1*f32",
    "quant.Decode{i8@1x0*f32}(%q, %s2)": "scale or zero point %s2 has shape [1,4], expected [?,1]",
    "quant.Decode{i8@0*f32}(%q, %s2)": "scale or zero point %s2 has shape [1,4], expected []",
    "quant.Decode{i8@0x0x1*f32}(%q, %s2)": "%q has 2 axes, the QType i8@0x0x1*f32 has 3",
    "quant.Scale{i8@0*f32}(%q)": "Scale reads %q of type INT8, expected floats",
}


def wrong(call, before=""):
    return ir.parse(
        "graph g(%x: f32[n,4], %q: i8[n,4], %i: i64[4], %s: f32[], %s2: f32[1,4]) -> %y {"
        f"{before} %y : f32[n,4] = {call} }}"
        "function my.F(%a, alpha) -> %b { %b = LeakyRelu(%a) {alpha=ref alpha float} }"
    )


@pytest.mark.parametrize("call", WRONG)
def test_a_node_that_breaks_its_signature_is_named(call):
    model = wrong(call)
    if "Gone" in call:
        next(iter(model.graph)).domain = "gone"
    with pytest.raises(VerifyError) as caught:
        verify(model)
    assert WRONG[call] in str(caught.value)
    assert "'y'" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("before", "call", "message"),
    [
        ("%p : i8@0*f32[n,4] = quant.Encode(%x, %s)", "Add(%p, %p)", "which only Decode and ops that move"),
        ("%p : i8@0*f32[n,4] = quant.Encode(%x, %s) %k : i64[2] = const [4, -1] %t = Reshape(%p, %k)",
         "Add(%t, %t)", "which only Decode and ops that move"),
        ("%p : i8@0x1*f32[n,4] = quant.Encode(%x, %s2)", "Transpose(%p)", "whose scales would stay behind"),
        ("%p : i8@0*f32[n,4] = quant.Encode(%x, %s)", "quant.Decode{i8@0*f16}(%p, %s16)",
         "codes %p are i8@0*f32, decoded as i8@0*f16"),
        ("%p : i8@0*f32[n,4] = quant.Encode(%x, %s) %p2 : i8@0x1*f32[n,4] = quant.Encode(%x, %s2)",
         "Concat(%p, %p2) {axis=0}", "whose scales would stay behind"),
        ("%p : i8@0*f32[n,4] = quant.Encode(%x, %s) %p2 : i8@0*f16[n,4] = quant.Encode(%x, %s16)",
         "Concat(%p, %p2) {axis=0}", "codes of i8@0*f32 and i8@0*f16 mixed"),
        ("%p : i8 = Add(%q, %q)", "quant.Decode{i8@0*f32}(%p, %s)", "%p is computed by Add, expected codes"),
        ("%p : i8@0*f32[2] = const [1, 2] %t : i8[2] = Add(%p, %p) %u : f32[2] = quant.Decode(%p, %s)",
         "Relu(%x)", "%p holds codes, which only Decode"),
        ("%p : u8@0*f32+u8[] = quant.Encode{u8@0*f32+u8}(%s, %s, %u8) %r : u8[n,4] = Identity(%u4)",
         "quant.Decode{u8@0*f32+u8}(%r, %s, %p)", "%p holds codes, which only Decode"),
    ],
)  # fmt: skip
def test_codes_are_read_by_decode_only(before, call, message):
    before = "%s16 : f16[] = const 1.0 %u8 : u8[] = const 3 %u4 : u8[1,4] = const ones " + before
    model = wrong(call, before)
    if call.startswith(("Transpose", "Concat")) or call == "Add(%p, %p)":
        model.graph.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.INT8)
    with pytest.raises(VerifyError) as caught:
        verify(model)
    assert message in str(caught.value)


def test_the_second_result_of_a_max_pool_is_no_codes():
    verify(
        ir.parse(
            "graph g(%x: f32[1,1,8], %s: f32[]) -> %y, %k { %p : i8@0*f32[1,1,8] = quant.Encode(%x, %s)"
            "%m : i8@0*f32[1,1,4], %i : i64[1,1,4] = MaxPool(%p) {kernel_shape=[2], strides=[2]}"
            "%y : f32[1,1,4] = quant.Decode(%m, %s) %k : i64[1,1,4] = Neg(%i) }"
        )
    )


def test_stages_allow_different_ops():
    with pytest.raises(VerifyError, match=r"quant.Decode in a graph of stage FLOAT.*makes=CODED"):
        verify(ir.parse(GOOD), Stage.FLOAT)
    with pytest.raises(VerifyError, match="stage INTEGER has no rules; ask for FLOAT or CODED"):
        verify(ir.parse(GOOD), Stage.INTEGER)


def test_codes_inside_a_body_make_the_graph_coded():
    model = ir.parse(
        "graph g(%x: f32[2], %s: f32[], %c: bool[]) -> %y { %y : f32[2] = If(%c) {"
        "then_branch=graph t() -> %a { %q : i8@0*f32[2] = quant.Encode(%x, %s) %a : f32[2] = quant.Decode(%q, %s) }"
        "else_branch=graph e() -> %b { %b : f32[2] = Relu(%x) } } }"
    )
    assert stage_of(model) is Stage.CODED
    verify(model)


def test_functions_must_be_defined_and_qtypes_read():
    model = ir.parse(GOOD)
    del model.functions[("quant", "Decode", "i8@0x1*f32")]
    with pytest.raises(
        VerifyError, match=r"function of quant.Decode:i8@0x1\*f32 is not defined.*ir.ops.define"
    ):
        verify(model)
    model = ir.parse(GOOD)
    node = next(n for n in model.graph if ops.is_op(n, "Decode"))
    model.functions[("quant", "Decode", "i8")] = model.functions[node.op_identifier()]
    node.overload = "i8"
    with pytest.raises(VerifyError, match="'i8' is not a QType"):
        verify(model)


def node_of(model, op_type):
    return next(n for n in model.graph.all_nodes() if n.op_type == op_type)


def test_the_working_opset_is_required():
    model = ir.parse(GOOD)
    model.opset_imports[""] = 17
    with pytest.raises(
        VerifyError, match=r"at opset 17, expected 25; read the model with ir\.capture"
    ):
        verify(model)


def test_a_read_before_its_definition():
    model = ir.parse("graph g(%x: f32[2]) -> %z { %z : f32[2] = Exp(%y) %y : f32[2] = Relu(%x) }")
    with pytest.raises(
        VerifyError, match=r"input 0 \(%y\) is defined later, by an output of Relu 'y'.*sort"
    ):
        verify(model)


def test_a_cycle():
    model = ir.parse(
        "graph g(%x: f32[2]) -> %z { %y : f32[2] = Add(%x, %z) %z : f32[2] = Exp(%y) }"
    )
    with pytest.raises(
        VerifyError, match=r"input 1 \(%z\) depends on the node's own outputs: a cycle"
    ):
        verify(model)


def test_a_read_of_a_removed_node():
    model = ir.parse("graph g(%x: f32[2]) -> %z { %y : f32[2] = Relu(%x) %z : f32[2] = Exp(%y) }")
    model.graph.remove(node_of(model, "Relu"))
    with pytest.raises(
        VerifyError, match=r"%y\) is defined nowhere in its scope.*which is in no graph"
    ):
        verify(model)


def test_a_body_keeps_its_values_to_itself():
    model = ir.parse(GOOD)
    inner = node_of(model, "Clip").outputs[0]
    relu = onnx_ir.Node("", "Relu", [inner], outputs=[onnx_ir.Value(name="late")], name="late")
    model.graph.append(relu)
    with pytest.raises(VerifyError, match=r"%b\) is defined nowhere in its scope.*at Relu 'late'"):
        verify(model)


@pytest.mark.parametrize("other", ["x", "one", "a"])
def test_names_are_unique_over_the_model(other):
    model = ir.parse(GOOD)
    node_of(model, "Clip").outputs[0].name = other
    with pytest.raises(
        VerifyError, match=f"%{other} is defined twice, expected unique names over the model"
    ):
        verify(model)


def test_a_value_without_a_name():
    model = ir.parse(GOOD)
    node_of(model, "MatMul").outputs[0].name = None
    with pytest.raises(VerifyError, match=r"a value has no name \(at MatMul 'h'\)"):
        verify(model)


def test_an_output_that_nothing_defines():
    model = ir.parse(GOOD)
    model.graph.outputs.append(onnx_ir.Value(name="ghost"))
    with pytest.raises(VerifyError, match="output %ghost of graph 'good' is defined nowhere"):
        verify(model)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [(None, "initializer %one has no tensor"),
     (onnx_ir.Tensor(np.ones((), np.int32)), "is typed FLOAT, its tensor is INT32"),
     (onnx_ir.Tensor(np.ones((2,), np.float32)), r"has shape \[\], its tensor has \[2\]")],
)  # fmt: skip
def test_initializers_match_their_tensors(tensor, message):
    model = ir.parse(GOOD)
    model.graph.initializers["one"].const_value = tensor
    with pytest.raises(VerifyError, match=message):
        verify(model)


def test_a_constant_left_marked_as_an_input():
    model = ir.parse(GOOD)
    model.graph.inputs.append(model.graph.initializers["one"])
    del model.graph.inputs[-1:]  # a list's `del`, which onnx_ir does not see
    with pytest.raises(VerifyError, match="%one is marked as a graph input but is none"):
        verify(model)


def test_functions_of_the_model_are_walked_too():
    model = ir.parse(GOOD)
    function = model.functions[("my", "F", "")]
    next(iter(function)).op_type = "Rleu"
    with pytest.raises(VerifyError, match="op 'Rleu' is not in opset 25"):
        verify(model)


def chain(count):
    lines = [f"graph g(%x0: f32[b,64]) -> %x{count} {{", "%w : f32[64,64] = const seed:1"]
    lines += [f"%x{i + 1} : f32[b,64] = MatMul(%x{i}, %w)" for i in range(count)]
    return ir.parse("\n".join([*lines, "}"]))


def test_work_is_linear():
    few, many = (calls(verify, chain(n)) for n in (1000, 8000))
    assert exponent((1000, 8000), (few, many)) < 1.03
    assert many < 150 * 8000
