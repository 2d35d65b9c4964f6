"""Tokens -> names, types and constants of the syntax tree."""

from __future__ import annotations

import onnx_ir

from ir import ops
from ir.errors import PipelineError
from ir.qtype import QType

from . import words
from .lexer import Token, Tokens
from .tree import Literal, Name, Type


def value_name(tokens: Tokens) -> Name:
    """`%x`, or `_` for an absent value."""
    token = tokens.take()
    if token.kind == "value":
        text = tokens.unquote(token)
        if not text:
            tokens.fail("a name that is not empty", token)
        return Name(token.at, text, None)
    if token.text != "_":
        tokens.fail("a value such as %x", token)
    return Name(token.at, None, None)


def _codes_type(tokens: Tokens, token: Token) -> onnx_ir.TensorType:
    """The ONNX type that stores codes of the QType a token spells."""
    try:
        return onnx_ir.TensorType(ops.onnx_type(QType.parse(token.text).element))
    except PipelineError as error:
        tokens.fail("the QType of stored codes", token, hint=str(error))


def type_of(tokens: Tokens) -> Type:
    token = tokens.take()
    kind, qtype = None, None
    if token.text != "?":
        kind, qtype = _element(tokens, token)
    shape = None
    if tokens.accept("["):
        shape = []
        while not tokens.accept("]"):
            shape.append(_dim(tokens))
            if not tokens.accept(","):
                tokens.expect("]")
                break
    return Type(token.at, kind, None if shape is None else tuple(shape), qtype)


_WRAPPED = {"seq": onnx_ir.SequenceType, "opt": onnx_ir.OptionalType}


def _element(tokens: Tokens, token):
    if token.kind != "word":
        tokens.fail("a type such as f32[1,2]", token)
    text = token.text
    if "@" in text:
        return _codes_type(tokens, token), text
    if text in words.DTYPES:
        return onnx_ir.TensorType(words.DTYPES[text]), None
    if text in _WRAPPED or text == "sparse":
        tokens.deeper()
        tokens.expect("(")
        inner, _ = _element(tokens, tokens.take())
        tokens.expect(")")
        tokens.depth -= 1
        if text in _WRAPPED:
            return _WRAPPED[text](inner), None
        if isinstance(inner, onnx_ir.TensorType):
            return onnx_ir.SparseTensorType(inner.dtype), None
    return tokens.fail(
        "a type: f32, i64, bool, a QType, seq(...), opt(...), sparse(...) or ?", token
    )


def _dim(tokens: Tokens) -> int | str | None:
    token = tokens.peek
    if token.kind == "number":
        size = tokens.integer("a dimension")
        if size >= 1 << 63:
            tokens.fail("a dimension of 63 bits", token)
        return size
    return None if tokens.accept("?") else tokens.name("a dimension: a number, a name or ?")


def literal(tokens: Tokens) -> Literal:
    """What follows `const`: perhaps name and type, then values, a digest or how to make them."""
    found = Literal(tokens.peek.at)
    if tokens.peek.kind == "value":
        found.name = value_name(tokens).text
    token = tokens.peek
    if token.kind == "word" and token.text in words.DTYPES:
        found.type = type_of(tokens)
    token = tokens.peek
    if token.text == "[" or token.kind in ("number", "string") or token.text in _ATOMS:
        found.kind, found.payload = "values", _numbers(tokens)
        return found
    tokens.take()
    if token.text in ("zeros", "ones", "missing"):
        found.kind = token.text
        return found
    kind, _, text = token.text.partition(":")
    if kind == "sha" and text:
        found.kind, found.payload = "sha", text
    elif kind == "seed" and text.isdecimal() and len(text) < 20:
        found.kind, found.payload = "seed", int(text)
    else:
        tokens.fail("values, sha:DIGEST, seed:N, zeros or ones", token)
    while tokens.peek.kind == "word" and tokens.peek.text.startswith(("max:", "used:")):
        _remark(tokens)
    return found


_ATOMS = {"true": True, "false": False, "inf": float("inf"), "nan": float("nan")}


def _remark(tokens: Tokens) -> None:
    """`max:1.641` or `used:15/16`: for readers only; a word may be cut at a sign or exponent."""
    token = tokens.take()
    end = token.at + len(token.text)
    while tokens.peek.at == end and tokens.peek.kind in ("word", "number"):
        token = tokens.take()
        end = token.at + len(token.text)


def _numbers(tokens: Tokens) -> list:
    """The flat list of a value or of nested lists of values."""
    found, depth = [], 0
    while True:
        token = tokens.take()
        if token.text == "[" and token.kind == "punct":
            depth += 1
        elif token.kind == "number":
            found.append(tokens.number(token))
        elif token.kind == "string":
            found.append(tokens.unquote(token))
        elif token.kind == "word" and token.text in _ATOMS:
            found.append(_ATOMS[token.text])
        elif not (token.text == "]" and depth):
            tokens.fail("a number, true, false, a quoted text or a list of them", token)
        if token.text == "]" and token.kind == "punct":
            depth -= 1
        if depth == 0:
            return found
        if tokens.peek.text != "]" and token.text != "[":
            tokens.expect(",")
