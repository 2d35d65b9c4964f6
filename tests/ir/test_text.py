"""The text form reads back as the very same graph, and wrong text is refused with a place."""

# ruff: noqa: E501 (graph texts have one line a value)
import re

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ir
from ir import ops
from ir.errors import VerifyError
from ir.graph import BY, IR_VERSION, OPSET, Names
from ir.qtype import QType
from ir.text import digest, store
from tests.ir.random_graphs import models
from tests.work import calls, exponent

HAND = """\
graph hand(%x: f32[batch,?,64], %"a b": seq(f32)[2,n], %d: f32[2], %c: bool[]) -> %y, %z {
  %d = const f32[2] [1.0, -0.0]
  %wq        : i4@4x1*f16[4,2]          = const [1, -8, 3, 4, 5, 6, 7, 0]  ; by gptq{damp=0.01}
  %s         : f16[1,2]                 = const [0.1, 6e-08]
  %w         : f32[4,2]                 = quant.Decode(%wq, %s)
  %sc, %zp = quant.Scale{u8@0*f32+u8}(%x)
  %xq        : u8@0*f32+u8[batch,?,64]  = quant.Encode(%x, %sc, %zp) @enc
  %h         : f32[batch,2]             = Conv(%x, _, %w) {pads=[1, 1], auto="SAME \\"x\\"", alpha=0.1, e=floats[], b=bytes "ff00", t=const %q i64[] 7, k=type seq(f32)[?], big=1e+20}
  %y         : f32[batch,?]             = If(%c) {
    then_branch=graph then() -> %a {
      %k         : f32[]                    = const 3.0
      %a         : ?[1,2]                   = Add(%h, %k)
    }
    else_branch=graph els() -> %b {
      %b = com.microsoft.Foo{"over load"}(%h, %"a b")
    }
  }  ; by split
  %nan       : f32                      = const f32[3] [nan, inf, -inf]
  %text      : str[2]                   = const ["a\\n", "\\u00e9"]
  %cplx      : c64[1]                   = const [1.5, -2.0]
  %z, _, %"q q" = "odd domain".Thing(%nan, %text, %cplx, %xq)  ; | {"ptqc.site": "3"}
}
function my.F(%a, alpha, beta=1.5) -> %b {
  %b = LeakyRelu(%a) {alpha=ref alpha float}
}
"""


def canonical(model):
    """The protos of a model as plain data, free of order and of commentary."""
    model = model.clone()
    ops.define(model)
    proto = onnx_ir.to_proto(model)
    keyed = {
        "attribute",
        "initializer",
        "value_info",
        "opset_import",
        "functions",
        "metadata_props",
    }

    def plain(message):
        if isinstance(message, onnx.TensorProto):
            array = onnx.numpy_helper.to_array(message)
            shown = array.tolist() if array.dtype == object else array.tobytes()
            return (message.name, message.data_type, tuple(message.dims), shown)
        found = {}
        for field, value in message.ListFields():
            if field.name == "doc_string":
                continue
            if field.name == "metadata_props":
                value = [item for item in value if item.key.startswith(("ptqc.", "quant."))]
                if not value:
                    continue
            many = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
            if field.message_type is not None:
                value = [plain(item) for item in value] if many else plain(value)
                if field.name in keyed:
                    value = sorted(value, key=repr)
            else:
                value = list(value) if many else value
            found[field.name] = value
        return found

    return plain(proto)


def same(left, right):
    assert repr(canonical(left)) == repr(canonical(right))


def test_a_text_with_everything_in_it_reads_back():
    model = ir.parse(HAND)
    assert ir.show(model) == HAND
    same(ir.parse(ir.show(model)), model)


def test_what_the_text_says_is_what_is_built():
    model = ir.parse(HAND)
    by_name = {v.name: v for node in model.graph for v in node.outputs}
    decode = by_name["w"].producer()
    assert (decode.domain, decode.op_type, decode.overload) == ("quant", "Decode", "i4@4x1*f16")
    assert decode.name == "w"
    assert set(model.functions) >= {("quant", "Decode", "i4@4x1*f16"), ("my", "F", "")}
    conv = by_name["h"].producer()
    assert conv.inputs[1] is None
    assert conv.attributes["alpha"].as_float() == pytest.approx(0.1)
    assert [a.type.name for a in conv.attributes.values()] == [
        "INTS", "STRING", "FLOAT", "FLOATS", "STRING", "TENSOR", "TYPE_PROTO", "FLOAT",
    ]  # fmt: skip
    assert by_name["y"].producer().metadata_props[BY] == "split"
    assert list(model.graph.inputs[0].shape) == [
        onnx_ir.SymbolicDim("batch"),
        onnx_ir.SymbolicDim(None),
        64,
    ]
    weights = model.graph.initializers["wq"].const_value
    assert weights.dtype == onnx_ir.DataType.INT4
    assert weights.numpy().astype(int).tolist() == [[1, -8], [3, 4], [5, 6], [7, 0]]
    assert model.opset_imports[""] == OPSET
    assert model.ir_version == IR_VERSION


def test_the_header_holds_what_differs_from_the_defaults():
    text = 'model {ir=10, opset={"": 17, "my": 2}, producer_name="hand", model_version=3, meta={"ptqc.a": "b"}}\n'
    text += "graph g(%x: f32[2]) -> %y {\n  %y         : f32[2]                   = my.Op(%x)\n}\n"
    model = ir.parse(text)
    assert (model.ir_version, model.opset_imports) == (10, {"": 17, "my": 2})
    assert model.metadata_props == {"ptqc.a": "b"}
    assert ir.show(model) == text


def test_nested_lists_are_flattened():
    model = ir.parse("graph g() -> %w { %w : f32[2,3] = const [[1, 2, 3], [4, 5, 6]] }")
    assert model.graph.initializers["w"].const_value.numpy().tolist() == [[1, 2, 3], [4, 5, 6]]


def test_seed_zeros_and_ones_are_made_by_the_parser():
    model = ir.parse(
        "graph g() -> %a { %a : f32[300,4] = const seed:7 %b : f16[2] = const ones\n"
        "%c : i8[300] = const zeros %d : f32[300,4] = const seed:7 %e : f32[300,4] = const seed:8 }"
    )
    found = {name: v.const_value.numpy() for name, v in model.graph.initializers.items()}
    assert 0.9 < found["a"].std() < 1.1
    np.testing.assert_array_equal(found["a"], found["d"])
    assert (found["a"] != found["e"]).any()
    assert found["b"].tolist() == [1, 1]
    assert found["c"].tolist() == [0] * 300


def big(array):
    value = onnx_ir.val("w", const_value=onnx_ir.Tensor(array, name="w"))
    graph = onnx_ir.Graph(
        [], [], nodes=[], initializers=[value], opset_imports={"": OPSET}, name="g"
    )
    return onnx_ir.Model(graph, ir_version=IR_VERSION)


def test_big_constants_are_found_by_digest():
    model = big(np.linspace(-2, 1, 100, dtype=np.float32))
    text = ir.show(model)
    assert re.search(r"= const sha:[0-9a-f]{12} max:2\n", text)
    again = ir.parse(text, tensors=store(model))
    assert again.graph.initializers["w"].const_value is model.graph.initializers["w"].const_value
    with pytest.raises(
        VerifyError, match=r"a tensor for digest [0-9a-f]{12} \(at line 2, column \d+\).*store"
    ):
        ir.parse(text)
    full = ir.show(model, constants="full")
    same(ir.parse(full), model)


@pytest.mark.parametrize(
    "other",
    [np.arange(64, dtype=np.int32), np.arange(64, dtype=np.float32).reshape(8, 8),
     np.arange(64, dtype=np.float32)[::-1]],
)  # fmt: skip
def test_digests_differ_by_type_shape_and_numbers(other):
    base = onnx_ir.Tensor(np.arange(64, dtype=np.float32))
    assert digest(base) == digest(onnx_ir.Tensor(np.arange(64, dtype=np.float32)))
    assert digest(base) != digest(onnx_ir.Tensor(other))


def test_codes_show_how_many_levels_they_use():
    model = ir.parse(
        "graph g() -> %w { %q : i4@0*f32[40] = const zeros %s : f32[] = const 0.5\n"
        "%w : f32[40] = quant.Decode(%q, %s) }"
    )
    assert "used:1/16" in ir.show(model)


def test_an_overload_that_the_codes_do_not_say_is_shown():
    model = ir.parse(
        "graph g(%q: i8[4], %s: f32[]) -> %a, %b {\n"
        "%a = quant.Decode{i8@0*f32}(%q, %s) %b = quant.Decode{i8@0*f16}(%q, %s) }"
    )
    text = ir.show(model)
    assert "%q: i8@0*f32[4]" in text
    assert "%a = quant.Decode(%q, %s)" in text
    assert "%b = quant.Decode{i8@0*f16}(%q, %s)" in text
    same(ir.parse(text), model)


def test_names_of_our_ops_are_not_repeated():
    model = ir.parse("graph g(%x: f32[4]) -> %x {\n}")
    x = model.graph.inputs[0]
    names, qtype = Names(model), QType.parse("i8@0*f32")
    scale = ops.make("Scale", qtype, [x], names, "x")
    codes = ops.make("Encode", qtype, [x, scale.outputs[0]], names, "x")
    decode = ops.make("Decode", qtype, [codes.outputs[0], scale.outputs[0]], names, "x")
    model.graph.extend([scale, codes, decode])
    ops.define(model)
    text = ir.show(model)
    assert "@x" not in text
    assert "%x.codes   : i8@0*f32[4]" in text
    same(ir.parse(text), model)


def test_node_names_can_be_left_out():
    text = ir.show(ir.parse("graph g(%x: f32[4]) -> %y { %y = Relu(%x) @r }"), node_names=False)
    assert "@r" not in text
    assert "Relu(%x)" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 'graph', found the end (at line 1, column 1)"),
        ("graph g() -> %y { }", "expected a value that is defined; %y is not (at line 1, column 14)"),
        ("graph g(%x: f33) -> {}", "expected a type: f32, i64, bool, a QType"),
        ("graph g(%x: f32[1,) -> {}", "expected a dimension: a number, a name or ?, found ')' (at line 1, column 19)"),
        ("graph g(%x) -> {\n %y = Relu(%z) }", "%z is not (at line 2, column 12)"),
        ("graph g(%x, %x) -> {}", "expected one definition of %x (at line 1, column 13)"),
        ("graph g(%x) -> { %x = Relu(%x) }", "expected one definition of %x"),
        ("graph g(%x) -> { %y = Relu(%x) {a=1, a=2} }", "expected every attribute once"),
        ("graph g(%x) -> { %y = Relu(%x) {a=[1, 2.0]} }", "expected a list of one kind"),
        ("graph g(%x) -> { %y = Relu(%x) {a=99999999999999999999999} }", "an integer of 64 bits"),
        ("graph g() -> { %w : f32[2] = const [1, 2, 3] }", "expected 2 values, found 3"),
        ("graph g() -> { %w : u8[2] = const [1, 256] }", "integers from 0 to 255, found 256"),
        ("graph g() -> { %w : f32[2] = const [1, true] }", "values of type f32, found True"),
        ("graph g() -> { %w : f32[n] = const zeros }", "whose dimensions are numbers"),
        ("graph g() -> { %w : f32[99999999,99999999] = const zeros }", "at most 268435456 values"),
        ("graph g() -> { %w = const 1 }", "expected a constant with a type and a shape"),
        ("graph g(%x) -> { %y = quant.Decode(%x, %x) }", "expected the QType of Decode"),
        ("graph g(%x) -> { %y = quant.Scale{i8}(%x) }", "'i8' is not a QType"),
        ("graph g(%x: q9@0*f32) -> { }", "no ONNX type stores 'q9'"),
        ("graph g(%x) -> { %y = Relu(%x) \u00a7 }", "found '\u00a7' (at line 1, column 32)"),
        ("graph g(%x) -> { %y = F(%x) {a=" + "graph g() -> { %z = F() {a=" * 60, "levels of nesting"),
    ],
)  # fmt: skip
def test_a_wrong_text_is_refused_with_its_place(text, message):
    with pytest.raises(VerifyError) as caught:
        ir.parse(text)
    assert message in str(caught.value)
    assert re.search(r"line \d+, column \d+", str(caught.value))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(models())
def test_any_graph_reads_back_exactly(model):
    text = ir.show(model)
    again = ir.parse(text, tensors=store(model))
    assert ir.show(again) == text
    same(again, model)


PIECES = re.findall(r"\s+|[\w.]+|.", HAND)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_text_never_ends_in_anything_but_the_clean_error(data):
    pieces = list(PIECES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(pieces) - 1))
        kind = data.draw(st.sampled_from(["drop", "swap", "put", "cut"]))
        if kind == "drop":
            del pieces[at : at + data.draw(st.integers(1, 5))]
        elif kind == "swap":
            pieces[at] = data.draw(st.sampled_from(PIECES))
        elif kind == "put":
            pieces.insert(at, data.draw(st.text(max_size=3)))
        else:
            pieces = pieces[: at + 1]
        pieces = pieces or [" "]
    try:
        model = ir.parse("".join(pieces))
    except VerifyError as error:
        place = re.search(r"line \d+, column \d+", str(error))
    else:
        place = ir.show(ir.parse(ir.show(model), tensors=store(model))) == ir.show(model)
    assert place


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_at_all_is_refused_cleanly(text):
    with pytest.raises(VerifyError, match=r"line \d+, column \d+"):
        ir.parse("graph g(" + text)


def chain(count):
    lines = [f"graph g(%x0: f32[b,64]) -> %x{count} {{", "%w : f32[64,64] = const seed:1"]
    lines += [f"%x{i + 1} : f32[b,64] = MatMul(%x{i}, %w) ; by smooth" for i in range(count)]
    return "\n".join([*lines, "}"])


def test_printing_and_parsing_are_linear():
    few, many = (calls(lambda text: ir.show(ir.parse(text)), chain(n)) for n in (1000, 8000))
    assert exponent((1000, 8000), (few, many)) < 1.03
