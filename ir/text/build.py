"""Syntax tree -> onnx_ir."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir

from ir import ops
from ir.errors import PipelineError
from ir.graph import IR_VERSION, QUANT_DOMAIN, Graph, Node, Value

from . import constants, words
from .lexer import Tokens
from .printer import default_imports
from .tree import Attribute, Body, Literal, Name, Op, Statement, Type

_KINDS = onnx_ir.AttributeType
Scope = dict[str, Value]


class Builder:
    """Builds one model; `tensors` holds the constants that the text shows by digest."""

    def __init__(self, tokens: Tokens, tensors: Mapping[str, onnx_ir.TensorProtocol]) -> None:
        self._tokens = tokens
        self._tensors = tensors
        self._codes: dict[Value, str] = {}

    def model(self, header: dict, graph: Body, functions: list[Body]) -> Graph:
        main = self._graph(graph, {})
        model = onnx_ir.Model(
            main,
            ir_version=header.get("ir", IR_VERSION),
            producer_name=header.get("producer_name"),
            producer_version=header.get("producer_version"),
            domain=header.get("domain"),
            model_version=header.get("model_version"),
            functions=[self._function(body) for body in functions],
        )
        model.metadata_props.update(header.get("meta", {}))
        main.opset_imports.update(header.get("opset") or default_imports([main]))
        try:
            ops.define(model)
        except PipelineError as error:
            self._tokens.fail("QTypes that have a function", graph.at, hint=str(error))
        if "opset" in header:
            main.opset_imports.clear()
            main.opset_imports.update(header["opset"])
        return model

    def _function(self, body: Body) -> onnx_ir.Function:
        assert body.op is not None
        graph = self._graph(body, {})
        graph.opset_imports.update(body.opset or default_imports([graph]))
        attributes = [
            onnx_ir.Attr(a.name, _KINDS.UNDEFINED, None)
            if a.kind is None
            else self._attribute(a, {})
            for a in body.attributes
        ]
        return onnx_ir.Function(
            body.op.domain,
            body.op.op_type,
            body.op.overload or "",
            graph=graph,
            attributes=attributes,
        )

    def _graph(self, body: Body, outer: Scope) -> onnx_ir.Graph:
        own: Scope = {}
        inputs = [self._declare(name, own) for name in body.inputs]
        initializers = {}
        for statement in body.statements:
            if statement.literal is not None:
                value = self._constant(statement, own, inputs)
                if value.name in initializers:
                    self._tokens.fail(f"one definition of %{value.name}", statement.at)
                initializers[value.name] = value
            else:
                for name in statement.outputs:
                    if name.text is not None:
                        self._declare(name, own)
        scope = {**outer, **own} if outer else own
        nodes = [self._node(s, own, scope) for s in body.statements if s.literal is None]
        outputs = [self._find(name, scope) for name in body.outputs]
        try:
            return onnx_ir.Graph(
                inputs,
                outputs,
                nodes=nodes,
                initializers=list(initializers.values()),
                name=body.name,
            )
        except ValueError as error:
            self._tokens.fail("a graph that can be built", body.at, hint=str(error))

    def _declare(self, name: Name, own: Scope) -> Value:
        if name.text is None:
            self._tokens.fail("a value with a name", name.at)
        if name.text in own:
            self._tokens.fail(f"one definition of %{name.text}", name.at)
        value = own[name.text] = onnx_ir.Value(name=name.text)
        self._annotate(value, name.type)
        return value

    def _annotate(self, value: Value, kind: Type | None) -> None:
        if kind is not None:
            value.type, value.shape = kind.kind, _shape(kind)
            if kind.qtype is not None:
                self._codes[value] = kind.qtype

    def _find(self, name: Name, scope: Scope) -> Value:
        found = scope.get(name.text or "")
        if found is None:
            self._tokens.fail(f"a value that is defined; %{name.text} is not", name.at)
        return found

    def _constant(self, statement: Statement, own: Scope, inputs: list[Value]) -> Value:
        literal = statement.literal
        assert literal is not None
        if len(statement.outputs) != 1:
            self._tokens.fail("one value before '= const'", statement.at)
        name = statement.outputs[0]
        known = own.get(name.text or "")
        is_input = known is not None and any(known is value for value in inputs)
        value = known if known is not None and is_input else self._declare(name, own)
        kind = literal.type or name.type
        value.const_value = self._tensor(literal, kind, name.text)
        value.metadata_props.update(statement.meta)
        return value

    def _tensor(self, literal: Literal, kind: Type | None, name: str | None):
        if literal.kind == "missing":
            return None
        if literal.kind == "sha":
            found = self._tensors.get(literal.payload)
            if found is None:
                hint = "pass tensors=store(graph) of the printed graph, or print constants='full'"
                self._tokens.fail(f"a tensor for digest {literal.payload}", literal.at, hint=hint)
            return found
        if kind is None or not isinstance(kind.kind, onnx_ir.TensorType) or kind.shape is None:
            self._tokens.fail("a constant with a type and a shape", literal.at)
        dims = [dim for dim in kind.shape if isinstance(dim, int) and dim >= 0]
        if len(dims) != len(kind.shape):
            self._tokens.fail("a constant whose dimensions are numbers", literal.at)
        dtype, shape = kind.kind.dtype, tuple(dims)
        try:
            if literal.kind == "values":
                return constants.from_numbers(literal.payload, dtype, shape, name)
            return constants.made(literal.kind, dtype, shape, literal.payload or 0, name)
        except (ValueError, TypeError) as error:
            self._tokens.fail(str(error), literal.at)

    def _node(self, statement: Statement, own: Scope, scope: Scope) -> Node:
        op = statement.op
        assert op is not None
        inputs = [None if n.text is None else self._find(n, scope) for n in statement.inputs]
        outputs = [
            onnx_ir.Value(name="") if n.text is None else own[n.text] for n in statement.outputs
        ]
        attributes = {a.name: self._attribute(a, scope) for a in statement.attributes}
        if len(attributes) != len(statement.attributes):
            self._tokens.fail("every attribute once", statement.at)
        overload = op.overload if op.overload is not None else self._overload(op, inputs, outputs)
        first = statement.outputs[0].text if statement.outputs else None
        name = statement.name
        return Node(
            op.domain, op.op_type, inputs, attributes, overload=overload, outputs=outputs,
            name=words.derived_name(op.domain, op.op_type, first) if name is None else name,
            metadata_props=statement.meta or None,
        )  # fmt: skip

    def _overload(self, op: Op, inputs: list[Value | None], outputs: list[Value]) -> str:
        """The QType that the type of the codes says, for an Encode or Decode that says none."""
        if op.domain != QUANT_DOMAIN or op.op_type not in ops.OPS:
            return ""
        around = {"Encode": outputs, "Decode": inputs}.get(op.op_type)
        codes = self._codes.get(around[0]) if around and around[0] is not None else None
        if codes is None:
            hint = f"type the codes as i8@0*f32[...], or write quant.{op.op_type}{{i8@0*f32}}(...)"
            self._tokens.fail(f"the QType of {op.op_type}", op.at, hint=hint)
        return codes

    def _attribute(self, found: Attribute, scope: Scope) -> onnx_ir.Attr:
        kind, value = found.kind, found.value
        assert kind is not None
        if found.ref:
            return onnx_ir.RefAttr(found.name, value, kind)
        if kind == _KINDS.TENSOR:
            value = self._tensor(value, value.type, value.name)
        elif kind == _KINDS.TENSORS:
            value = [self._tensor(item, item.type, item.name) for item in value]
        elif kind == _KINDS.GRAPH:
            value = self._graph(value, scope)
        elif kind == _KINDS.GRAPHS:
            value = [self._graph(item, scope) for item in value]
        elif kind == _KINDS.TYPE_PROTO:
            value = _type_and_shape(value)
        elif kind == _KINDS.TYPE_PROTOS:
            value = [_type_and_shape(item) for item in value]
        return onnx_ir.Attr(found.name, kind, value)


def _shape(kind: Type) -> onnx_ir.Shape | None:
    return None if kind.shape is None else onnx_ir.Shape(kind.shape)


def _type_and_shape(kind: Type) -> onnx_ir.TypeAndShape:
    return onnx_ir.TypeAndShape(kind.kind, _shape(kind))
