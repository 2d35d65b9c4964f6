"""Graph -> text. One walk, one line a value."""

from __future__ import annotations

import json
from collections.abc import Iterator

import onnx_ir

from ir import ops
from ir.errors import PipelineError, VerifyError
from ir.graph import BY, IR_VERSION, OPSET, QUANT_DOMAIN, Graph, Node, Value, no_collection
from ir.qtype import QType

from . import words
from .constants import literal

_KINDS = onnx_ir.AttributeType
_NAME_WIDTH, _TYPE_WIDTH = 10, 24


def show(graph: Graph, *, constants: str = "short", node_names: bool = True) -> str:
    """The text of a model (form: see `ir.text`); the same graph always gives the same text.

    `constants`: "short" shows big ones by digest, "full" shows every number, so that `parse`
    needs no `tensors`. `node_names=False` leaves out the names of nodes, for
    comparing graphs by meaning.

    Raises VerifyError for what the form cannot say (sparse tensor attributes).
    """
    if constants not in ("short", "full"):
        raise VerifyError(f"constants='{constants}' is unknown", hint="use 'short' or 'full'")
    with no_collection():
        printer = _Printer(graph, constants == "full", node_names)
        return "\n".join(printer.model(graph)) + "\n"


def default_imports(graphs: list[onnx_ir.Graph]) -> dict[str, int]:
    """The opset imports of a text without any: the working opset, version 1 of other domains."""
    domains = {node.domain for graph in graphs for node in graph.all_nodes()} - {""}
    return {"": OPSET, **dict.fromkeys(sorted(domains), 1)}


class _Printer:
    def __init__(self, model: Graph, full: bool, node_names: bool) -> None:
        self._full = full
        self._node_names = node_names
        self._codes: dict[Value, str] = {}
        for body in [model.graph, *(f.graph for f in model.functions.values())]:
            self._note_codes(body)

    def _note_codes(self, graph: onnx_ir.Graph) -> None:
        """What the codes in a value mean: its Encode, else the first Decode that reads it."""
        for node in graph.all_nodes():
            if node.domain != QUANT_DOMAIN or node.op_type not in ("Encode", "Decode"):
                continue
            around = node.outputs if node.op_type == "Encode" else node.inputs
            value = around[0] if around else None
            if value is not None and value not in self._codes and _holds(value, node.overload):
                self._codes[value] = node.overload

    def model(self, model: Graph) -> Iterator[str]:
        yield from self._header(model)
        yield from self._graph(model.graph, "graph", "")
        for function in model.functions.values():
            if function.domain != QUANT_DOMAIN or function.name not in (*ops.OPS, *ops.MAPS):
                yield from self._function(function)

    def _header(self, model: Graph) -> Iterator[str]:
        parts = [] if model.ir_version == IR_VERSION else [f"ir={model.ir_version}"]
        if model.opset_imports != default_imports([model.graph]):
            parts.append(f"opset={_imports(model.opset_imports)}")
        for key in ("producer_name", "producer_version", "domain"):
            if getattr(model, key):
                parts.append(f"{key}={words.quoted(getattr(model, key))}")
        if model.model_version:
            parts.append(f"model_version={model.model_version}")
        meta = {k: v for k, v in model.metadata_props.items() if k.startswith(words.KEPT)}
        if meta:
            parts.append(f"meta={json.dumps(meta)}")
        if parts:
            yield f"model {{{', '.join(parts)}}}"

    def _function(self, function: onnx_ir.Function) -> Iterator[str]:
        overload = _braced(function.overload)
        extra = []
        for attribute in function.attributes.values():
            key = words.word(attribute.name)
            if attribute.value is None:
                extra.append(key)
            else:
                extra.append(f"{key}={self._attribute(attribute, '')}")
        opset = ""
        if function.opset_imports != default_imports([function.graph]):
            opset = f" opset {_imports(function.opset_imports)}"
        head = f"function {words.op(function.domain, function.name)}{overload}"
        yield from self._body(function.graph, head, extra, opset, "")

    def _graph(self, graph: onnx_ir.Graph, head: str, indent: str) -> Iterator[str]:
        yield from self._body(
            graph, f"{head} {words.word(graph.name)}" if graph.name else head, [], "", indent
        )

    def _body(
        self, graph: onnx_ir.Graph, head: str, extra: list[str], tail: str, indent: str
    ) -> Iterator[str]:
        inputs = [self._declared(value) for value in graph.inputs] + extra
        outputs = "".join(f" {_value(v)}," for v in graph.outputs)[:-1]
        yield f"{indent}{head}({', '.join(inputs)}) ->{outputs}{tail} {{"
        inner = indent + words.INDENT
        waiting = dict.fromkeys(graph.initializers.values())
        for value in [v for v in graph.inputs if v in waiting]:
            del waiting[value]
            yield inner + self._default(value)
        for node in graph:
            for value in _read(node) if waiting else ():
                if value in waiting:
                    del waiting[value]
                    yield inner + self._constant(value)
            yield inner + self._node(node, inner)
        for value in waiting:
            yield inner + self._constant(value)
        yield indent + "}"

    def _declared(self, value: Value) -> str:
        """A graph input; one that computes nothing but has a type shows it."""
        text = self._type(value)
        return f"{_value(value)}: {text}" if text else _value(value)

    def _type(self, value: Value) -> str:
        return type_text(value.type, value.shape, self._codes.get(value))

    def _left(self, values) -> str:
        return ", ".join(_left(_value(value), self._type(value)) for value in values) or "()"

    def _constant(self, value: Value) -> str:
        tensor, codes = value.const_value, self._codes.get(value)
        bits = QType.parse(codes).bits if codes and QType.parse(codes).integer else None
        shown = literal(tensor, self._full, bits)
        if tensor is not None and not _as_declared(value, tensor):
            shown = f"{_tensor_type(tensor)} {shown}"
        return f"{self._left([value])} = const {shown}{_note(value)}".rstrip()

    def _default(self, value: Value) -> str:
        """The default of a graph input, whose type stands in the signature."""
        tensor = value.const_value
        kind = f"{_tensor_type(tensor)} " if tensor is not None else ""
        return f"{_value(value)} = const {kind}{literal(tensor, self._full)}{_note(value)}"

    def _node(self, node: Node, indent: str) -> str:
        inputs = ", ".join(["_" if v is None else _value(v) for v in node.inputs])
        op = words.op(node.domain, node.op_type) + self._overload(node)
        text = f"{self._left(node.outputs)} = {op}({inputs})"
        if node.attributes:
            text += f" {self._attributes(node, indent)}"
        first = node.outputs[0].name if node.outputs else None
        if self._node_names and node.name != words.derived_name(node.domain, node.op_type, first):
            text += f" {words.name('@', node.name or '')}"
        return text + _note(node)

    def _overload(self, node: Node) -> str:
        if node.domain == QUANT_DOMAIN and node.op_type in ("Encode", "Decode"):
            around = node.outputs if node.op_type == "Encode" else node.inputs
            codes = self._codes.get(around[0]) if around and around[0] is not None else None
            if codes is not None:
                return "" if codes == node.overload else f"{{{words.word(node.overload)}}}"
        return _braced(node.overload)

    def _attributes(self, node: Node, indent: str) -> str:
        nested = any(a.type in (_KINDS.GRAPH, _KINDS.GRAPHS) for a in node.attributes.values())
        deeper = indent + words.INDENT
        items = [
            f"{words.word(name)}={self._attribute(attribute, deeper)}"
            for name, attribute in node.attributes.items()
        ]
        if not nested:
            return f"{{{', '.join(items)}}}"
        return "{\n" + "".join(f"{deeper}{item}\n" for item in items) + indent + "}"

    def _attribute(self, attribute: onnx_ir.Attr, indent: str) -> str:
        if attribute.is_ref():
            return f"ref {words.word(attribute.ref_attr_name or '')} {attribute.type.name.lower()}"
        kind, value = attribute.type, attribute.value
        for name, wanted in words.LISTS.items():
            if kind == wanted:
                if len(value) == 0:
                    return f"{name}[]"
                one = (
                    _KINDS(kind - _KINDS.FLOATS + _KINDS.FLOAT)
                    if kind != _KINDS.TYPE_PROTOS
                    else _KINDS.TYPE_PROTO
                )
                return f"[{', '.join(self._plain(one, item, indent) for item in value)}]"
        return self._plain(kind, value, indent)

    def _plain(self, kind: onnx_ir.AttributeType, value, indent: str) -> str:
        if kind == _KINDS.INT:
            return str(value)
        if kind == _KINDS.FLOAT:
            return words.number(value)
        if kind == _KINDS.STRING:
            return f'bytes "{value.hex()}"' if isinstance(value, bytes) else words.quoted(value)
        if kind == _KINDS.TENSOR:
            name = f" {words.name('%', value.name)}" if value.name else ""
            return f"const{name} {_tensor_type(value)} {literal(value, self._full)}"
        if kind == _KINDS.GRAPH:
            return "\n".join(self._graph(value, "graph", indent)).lstrip()
        if kind == _KINDS.TYPE_PROTO:
            return f"type {type_text(value.type, value.shape, None) or '?'}"
        if kind == _KINDS.UNDEFINED:
            return "undefined"
        raise VerifyError(
            f"the text form has no {kind.name} attributes", hint="make the tensor dense"
        )


def type_text(kind, shape: onnx_ir.Shape | None, codes: str | None) -> str:
    """`f32[4,n]`; empty when nothing is known."""
    if kind is None and shape is None:
        return ""
    element = codes or _element(kind)
    return element if shape is None else f"{element}[{','.join([_dim(d) for d in shape])}]"


def _element(kind) -> str:
    if kind is None:
        return "?"
    if isinstance(kind, onnx_ir.TensorType):
        return words.DTYPE_NAMES[kind.dtype]
    form = {
        onnx_ir.SequenceType: "seq",
        onnx_ir.OptionalType: "opt",
        onnx_ir.SparseTensorType: "sparse",
    }
    inner = kind.dtype if isinstance(kind, onnx_ir.SparseTensorType) else kind.elem_type
    text = words.DTYPE_NAMES[inner] if isinstance(inner, onnx_ir.DataType) else _element(inner)
    return f"{form[type(kind)]}({text})"


def _dim(dim: int | onnx_ir.SymbolicDim) -> str:
    if isinstance(dim, int):
        return str(dim)
    return "?" if dim.value is None else words.word(dim.value)


def _tensor_type(tensor: onnx_ir.TensorProtocol) -> str:
    return f"{words.DTYPE_NAMES[tensor.dtype]}[{','.join(map(str, tensor.shape))}]"


def _as_declared(value: Value, tensor: onnx_ir.TensorProtocol) -> bool:
    known = isinstance(value.type, onnx_ir.TensorType) and value.type.dtype == tensor.dtype
    return known and value.shape is not None and tuple(value.shape) == tuple(tensor.shape)


def _holds(value: Value, overload: str) -> bool:
    """Whether the value's type is the one that stores codes of the QType."""
    try:
        wanted = ops.onnx_type(QType.parse(overload).element)
    except PipelineError:
        return False
    return str(QType.parse(overload)) == overload and value.type == onnx_ir.TensorType(wanted)


def _read(node: Node) -> Iterator[Value]:
    """Every value a node reads, those that only its bodies read included."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        bodies = [attribute.value] if attribute.type == _KINDS.GRAPH else ()
        for body in attribute.value if attribute.type == _KINDS.GRAPHS else bodies:
            for inner in body:
                yield from _read(inner)
            yield from body.outputs


def _value(value: Value) -> str:
    return words.name("%", value.name) if value.name else "_"


def _left(name: str, kind: str) -> str:
    if name == "_":
        return name
    return f"{name:<{_NAME_WIDTH}} : {kind:<{_TYPE_WIDTH}}" if kind else name


def _braced(overload: str) -> str:
    return f"{{{words.word(overload)}}}" if overload else ""


def _imports(imports: dict[str, int]) -> str:
    return json.dumps(dict(sorted(imports.items())), ensure_ascii=False)


def _note(holder: Node | Value) -> str:
    """`; by PASS`, then any other metadata of ours as JSON."""
    meta = {k: v for k, v in holder.metadata_props.items() if k.startswith(words.KEPT)}
    by = meta.get(BY, "")
    if by and by == by.strip() and "| " not in f"{by} " and by.isprintable():
        del meta[BY]
        by = f"by {by}"
    else:
        by = ""
    rest = f"| {json.dumps(meta)}" if meta else ""
    return f"  ; {' '.join(part for part in (by, rest) if part)}" if by or rest else ""
