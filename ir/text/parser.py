"""Text -> syntax tree -> graph (`ir.text.build`)."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping

import onnx_ir

from ir.graph import BY, Graph

from . import build, words
from .leaves import literal, type_of, value_name
from .lexer import Tokens
from .tree import Attribute, Body, Name, Op, Statement


def parse(text: str, *, tensors: Mapping[str, onnx_ir.TensorProtocol] | None = None) -> Graph:
    """The model a text says (form: see `ir.text`); `show` of it is the text again.

    `tensors`: {digest: tensor} for constants shown by digest, as `store(graph)` gives. Raises
    VerifyError naming line, column and what was expected.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing built here is garbage yet; looking for it doubles the time
    try:
        return _model(Tokens(text), tensors or {})
    finally:
        if collecting:
            gc.enable()


def _model(tokens: Tokens, tensors: Mapping[str, onnx_ir.TensorProtocol]) -> Graph:
    header = _header(tokens) if tokens.accept("model") else {}
    tokens.expect("graph")
    graph = _graph(tokens)
    functions = []
    while tokens.accept("function"):
        functions.append(_function(tokens))
    if tokens.peek.kind != "end":
        tokens.fail("'function' or the end", tokens.peek)
    return build.Builder(tokens, tensors).model(header, graph, functions)


_HEADER = {"ir": int, "opset": dict, "producer_name": str, "producer_version": str, "domain": str,
           "model_version": int, "meta": dict}  # fmt: skip


def _header(tokens: Tokens) -> dict:
    found = {}
    tokens.expect("{")
    while not tokens.accept("}"):
        token = tokens.of("word", f"one of {', '.join(_HEADER)}")
        wanted = _HEADER.get(token.text)
        tokens.expect("=")
        if wanted is int:
            found[token.text] = tokens.integer("an integer")
        elif wanted is str:
            found[token.text] = tokens.name("a text")
        elif wanted is dict:
            found[token.text] = _mapping(tokens, int if token.text == "opset" else str)
        else:
            tokens.fail(f"one of {', '.join(_HEADER)}", token)
        if not tokens.accept(","):
            tokens.expect("}")
            break
    return found


def _mapping(tokens: Tokens, wanted: type) -> dict:
    found = {}
    tokens.expect("{")
    while not tokens.accept("}"):
        key = tokens.name("a key")
        tokens.expect(":")
        found[key] = tokens.integer("a version") if wanted is int else tokens.name("a text")
        if not tokens.accept(","):
            tokens.expect("}")
            break
    return found


def _graph(tokens: Tokens) -> Body:
    token = tokens.peek
    name = None if token.text == "(" else tokens.name("the graph's name")
    return _body(tokens, Body(token.at, name))


def _function(tokens: Tokens) -> Body:
    body = Body(tokens.peek.at, None)
    body.op = _op(tokens)
    return _body(tokens, body)


def _body(tokens: Tokens, body: Body) -> Body:
    tokens.deeper()
    tokens.expect("(")
    while not tokens.accept(")"):
        if tokens.peek.kind == "value":
            body.inputs.append(_declared(tokens))
        elif body.op is not None:
            at, name = tokens.peek.at, tokens.name("an input or an attribute")
            given = tokens.accept("=")
            body.attributes.append(
                _value(tokens, name) if given else Attribute(at, name, None, None)
            )
        else:
            tokens.fail("an input such as %x: f32[1,2]", tokens.peek)
        if not tokens.accept(","):
            tokens.expect(")")
            break
    tokens.expect("->")
    while tokens.peek.kind == "value":
        body.outputs.append(value_name(tokens))
        if not tokens.accept(","):
            break
    if body.op is not None and tokens.accept("opset"):
        body.opset = _mapping(tokens, int)
    tokens.expect("{")
    while not tokens.accept("}"):
        body.statements.append(_statement(tokens))
    tokens.depth -= 1
    return body


def _declared(tokens: Tokens) -> Name:
    name = value_name(tokens)
    return Name(name.at, name.text, type_of(tokens)) if tokens.accept(":") else name


def _statement(tokens: Tokens) -> Statement:
    at, outputs = tokens.peek.at, []
    if tokens.accept("("):
        tokens.expect(")")
    else:
        outputs.append(_declared(tokens))
        while tokens.accept(","):
            outputs.append(_declared(tokens))
    tokens.expect("=")
    found = Statement(at, outputs)
    if tokens.accept("const"):
        found.literal = literal(tokens)
    else:
        _call(tokens, found)
    if tokens.peek.kind == "note":
        found.meta = _note(tokens)
    return found


def _call(tokens: Tokens, found: Statement) -> None:
    found.op = _op(tokens)
    tokens.expect("(")
    while not tokens.accept(")"):
        found.inputs.append(value_name(tokens))
        if not tokens.accept(","):
            tokens.expect(")")
            break
    if tokens.accept("{"):
        while not tokens.accept("}"):
            name = tokens.name("an attribute")
            tokens.expect("=")
            found.attributes.append(_value(tokens, name))
            tokens.accept(",")
    if tokens.peek.kind == "node":
        found.name = tokens.unquote(tokens.take())


def _op(tokens: Tokens) -> Op:
    token = tokens.take()
    domain, op_type = "", token.text
    if token.kind == "string":
        op_type = tokens.unquote(token)
        if tokens.accept("."):
            domain, op_type = op_type, tokens.name("an op")
    elif token.kind == "word":
        domain, _, op_type = token.text.rpartition(".")
    else:
        tokens.fail("an op such as MatMul, or 'const'", token)
    if not op_type:
        tokens.fail("an op with a name", token)
    overload = None
    if tokens.accept("{"):
        overload = tokens.name("an overload")
        tokens.expect("}")
    return Op(token.at, domain, op_type, overload)


def _note(tokens: Tokens) -> dict[str, str]:
    """`; by PASS | {"key": "text"}`; any other text after `;` is a remark."""
    token = tokens.take()
    text = token.text[1:].strip()
    text, bar, rest = text.partition("| ")
    found = {}
    if text.startswith("by "):
        found[BY] = text[3:].strip()
    if bar:
        try:
            more = json.loads(rest)
        except (ValueError, RecursionError):
            more = None
        if not isinstance(more, dict) or not all(isinstance(v, str) for v in more.values()):
            tokens.fail("metadata as JSON, texts only, after '|'", token)
        found.update(more)
    return found


_KINDS = onnx_ir.AttributeType


def _value(tokens: Tokens, name: str) -> Attribute:
    token = tokens.peek
    if tokens.accept("["):
        items = []
        while not tokens.accept("]"):
            items.append(_one(tokens))
            if not tokens.accept(","):
                tokens.expect("]")
                break
        kinds = {kind for kind, _ in items}
        if len(kinds) != 1 or not kinds <= _LISTED.keys():
            tokens.fail("a list of one kind (an empty one as ints[], floats[], ...)", token)
        return Attribute(token.at, name, _LISTED[kinds.pop()], [item for _, item in items])
    if token.text in words.LISTS:
        tokens.take()
        tokens.expect("[")
        tokens.expect("]")
        return Attribute(token.at, name, words.LISTS[token.text], [])
    if tokens.accept("ref"):
        source = tokens.name("the function's attribute")
        kind = tokens.of("word", "a kind of attribute")
        if kind.text.upper() not in _KINDS.__members__:
            tokens.fail("a kind of attribute such as float or ints", kind)
        return Attribute(token.at, name, _KINDS[kind.text.upper()], source, ref=True)
    kind, value = _one(tokens)
    return Attribute(token.at, name, kind, value)


_LISTED = {
    _KINDS.INT: _KINDS.INTS, _KINDS.FLOAT: _KINDS.FLOATS, _KINDS.STRING: _KINDS.STRINGS,
    _KINDS.TENSOR: _KINDS.TENSORS, _KINDS.GRAPH: _KINDS.GRAPHS,
    _KINDS.TYPE_PROTO: _KINDS.TYPE_PROTOS,
}  # fmt: skip


def _one(tokens: Tokens) -> tuple[onnx_ir.AttributeType, object]:
    token = tokens.take()
    if token.kind == "number":
        number = tokens.number(token)
        if isinstance(number, float):
            return _KINDS.FLOAT, number
        if number >= 1 << 63:
            tokens.fail("a signed integer of 64 bits", token)
        return _KINDS.INT, number
    if token.kind == "string":
        return _KINDS.STRING, tokens.unquote(token)
    if token.text in ("inf", "nan"):
        return _KINDS.FLOAT, float(token.text)
    if token.text == "const":
        return _KINDS.TENSOR, literal(tokens)
    if token.text == "graph":
        return _KINDS.GRAPH, _graph(tokens)
    if token.text == "type":
        return _KINDS.TYPE_PROTO, type_of(tokens)
    if token.text == "undefined":
        return _KINDS.UNDEFINED, None
    if token.text == "bytes":
        text = tokens.of("string", "hexadecimal digits in quotes")
        try:
            return _KINDS.STRING, bytes.fromhex(tokens.unquote(text))
        except ValueError:
            tokens.fail("hexadecimal digits", text)
    return tokens.fail("an attribute's value", token)
