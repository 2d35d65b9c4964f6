"""Our few ops, in the domain `quant`: ONNX functions whose bodies are standard ops.

    %codes = quant.Encode:QTYPE(%x, %scale[, %zero])        float -> codes
    %x     = quant.Decode:QTYPE(%codes, %scale[, %zero])    codes -> float
    %scale[, %zero] = quant.Scale:QTYPE(%x)                 a scale computed at run time
    %y     = quant.Hadamard:AxB(%x, %a, %b)                 x (a (x) b), see ir/online_hadamard.py

The function's `overload` is the QType's text (of Hadamard the factors' orders), so a model may hold
any number of formats, and any ONNX runtime runs them by inlining the body. Scales keep the rank of
the tensor (`QType.scale_shape`).
"""

from __future__ import annotations

from functools import lru_cache

import onnx_ir

from . import formats, online_hadamard, tables
from .errors import PipelineError
from .formats import integer
from .graph import IR_VERSION, OPSET, QUANT_DOMAIN, Graph, Names, Node, Value, inner_graphs
from .qtype import QType, container

OPS = ("Encode", "Decode", "Scale")
"""Ops of codes."""
MAPS = ("Hadamard",)
"""Ops of floats."""
_ONNX_TYPES = {
    **{
        f"{sign}{bits}": f"{name}{bits}"
        for sign, name in (("i", "INT"), ("u", "UINT"))
        for bits in (2, 4, 8, 16, 32)
    },
    "f32": "FLOAT",
    "f16": "FLOAT16",
    "bf16": "BFLOAT16",
}
_SCALE_TYPES = {
    "e4m3": onnx_ir.DataType.FLOAT8E4M3FN,
    "e8m0": onnx_ir.DataType.FLOAT8E8M0,
}


def onnx_type(element: str) -> onnx_ir.DataType:
    """The ONNX type that stores an element's codes, or a zero point."""
    try:
        stored = element if element in _ONNX_TYPES else QType(element).container
        return onnx_ir.DataType[_ONNX_TYPES[stored]]
    except (KeyError, PipelineError):
        raise PipelineError(
            f"no ONNX type stores '{element}'", hint=f"one of {', '.join(_ONNX_TYPES)}"
        ) from None


def part_type(kind: str) -> onnx_ir.DataType:
    """The ONNX type of a scale or a zero point."""
    return _SCALE_TYPES.get(kind) or onnx_type(kind)


def is_ours(node: Node) -> bool:
    """Whether the node is one of our ops, of codes or of floats."""
    return node.domain == QUANT_DOMAIN and node.op_type in (*OPS, *MAPS)


def is_op(node: Node | None, *names: str) -> bool:
    """Whether the node is one of our ops of codes (any of them), or one of `names`."""
    return node is not None and node.domain == QUANT_DOMAIN and node.op_type in (names or OPS)


def qtype_of(node: Node) -> QType:
    """The QType of an Encode, Decode or Scale node."""
    return QType.parse(node.overload)


def decode_of(value: Value | None) -> Node | None:
    """The Decode that makes a value."""
    node = value.producer() if value is not None else None
    return node if is_op(node, "Decode") else None


def encode_of(value: Value | None) -> Node | None:
    """The Encode behind the Decode that makes a value; None for constant codes."""
    decode = decode_of(value)
    source = decode.inputs[0] if decode is not None else None
    node = source.producer() if source is not None else None
    return node if is_op(node, "Encode") else None


def codes_qtype(value: Value) -> QType | None:
    """What the codes in a value mean: asked of its Encode, else of a Decode that reads it."""
    producer = value.producer()
    if is_op(producer, "Encode"):
        return qtype_of(producer)  # type: ignore[arg-type]
    for use in value.uses():
        if is_op(use.node, "Decode") and use.idx == 0:
            return qtype_of(use.node)
    return None


def make(op: str, qtype: QType, inputs: list[Value], names: Names, like: str) -> Node:
    """A node of one of our ops; register its function with `define` (`ir.edit` does)."""
    suffixes = {"Encode": ("codes",), "Decode": ("decoded",), "Scale": ("scale", "zero")}[op]
    if op == "Scale" and qtype.zero is None:
        suffixes = suffixes[:1]
    outputs = [onnx_ir.val(names.fresh(f"{like}.{suffix}")) for suffix in suffixes]
    node = onnx_ir.Node(
        QUANT_DOMAIN,
        op,
        inputs,
        overload=str(qtype),
        outputs=outputs,
        name=names.fresh(f"{like}.{op}"),
    )
    _type_outputs(node, qtype, inputs[0])
    return node


def _type_outputs(node: Node, qtype: QType, source: Value) -> None:
    kinds = {"Encode": (qtype.element,), "Decode": ("f32",), "Scale": (qtype.scales[0], qtype.zero)}
    for value, kind in zip(node.outputs, kinds[node.op_type], strict=False):
        kind_of = part_type if node.op_type == "Scale" else onnx_type
        value.type = onnx_ir.TensorType(kind_of(kind))  # type: ignore[arg-type]
        if node.op_type != "Scale":
            value.shape = source.shape
        elif qtype.per_tensor:
            value.shape = onnx_ir.Shape(())
        elif source.shape is not None and len(source.shape) == len(qtype.block):
            kept = zip(source.shape, qtype.block, strict=True)
            if all(size in (0, 1) for size in qtype.block):
                value.shape = onnx_ir.Shape([1 if size == 0 else dim for dim, size in kept])


def define(model: Graph) -> None:
    """Give the model the function of every op of ours that it uses, and drop the unused ones."""
    used = {}
    for top in [model.graph, *(f.graph for f in model.functions.values())]:
        for graph in (top, *inner_graphs(top)):
            used.update((node.op_identifier(), node) for node in graph if is_ours(node))
        if top is model.graph and used:
            top.opset_imports.setdefault(QUANT_DOMAIN, 1)
    if not used:
        model.graph.opset_imports.pop(QUANT_DOMAIN, None)
    for key in [k for k in model.functions if k[0] == QUANT_DOMAIN and k not in used]:
        del model.functions[key]
    for key, node in used.items():
        if key not in model.functions:
            model.functions[key] = function(node.op_type, node.overload)


def function(op: str, overload: str) -> onnx_ir.Function:
    """The ONNX function of one op at one overload: signature and body in standard ops."""
    qtype = None if op in MAPS else QType.parse(overload)
    text = online_hadamard.body(overload) if qtype is None else _body(op, qtype)
    graph = _parse(text).graph.clone()
    if qtype is not None and not qtype.integer:
        tables.fill(graph, formats.table(qtype))
    return onnx_ir.Function(QUANT_DOMAIN, op, overload, graph=graph, attributes=())


@lru_cache(maxsize=256)
def _parse(body: str) -> onnx_ir.Function:
    text = (
        f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]> g (float x) => (float x) {{}}\n'
        f'<domain: "{QUANT_DOMAIN}", opset_import: ["": {OPSET}]>\n{body}'
    )
    return next(iter(onnx_ir.from_onnx_text(text).functions.values()))


def _body(op: str, qtype: QType) -> str:
    if not qtype.integer and (found := formats.table(qtype)) is not None:
        return tables.body(op, qtype, found, int(onnx_type(qtype.element)))
    if len(qtype.scales) != 1:
        raise PipelineError(f"{op} has no body for {qtype}", hint="integer elements with one scale")
    integer.dtype(qtype.element)  # refuses widths that ONNX cannot store
    zero = ", zero" if qtype.zero else ""
    if op == "Scale":
        return f"Scale (x) => (scale{zero}) {{ {_scale_body(qtype)} }}"
    source, result = ("x", "codes") if op == "Encode" else ("codes", "x")
    body = (_native_body if _is_native(qtype) else _broadcast_body)(op, qtype)
    return f"{op} ({source}, scale{zero}) => ({result}) {{ {body} }}"


def _is_native(qtype: QType) -> bool:
    """Whether the standard's two ops know the layout of the scales.

    Scales along one axis are reshaped for them, which ONNX Runtime does not do to zero points of
    less than 8 bits.
    """
    if qtype.axis is not None:
        return qtype.zero is None or int(container(qtype.zero)[1:]) >= 8
    return qtype.per_tensor or qtype.blocked_axis is not None


def _native_body(op: str, qtype: QType) -> str:
    """QuantizeLinear / DequantizeLinear on scales brought to the layout that they want.

    Codes narrower than their type are held at their own limits behind it.
    """
    lines, parts, attributes = ["real = Cast<to = 1>(scale)"], ["real"], []
    if qtype.zero:
        parts.append("zero")
    if qtype.axis is not None:
        lines.append("flat = Constant<value = int64[1] {-1}>()")
        lines += [f"{part}_row = Reshape({part}, flat)" for part in parts]
        parts = [f"{part}_row" for part in parts]
        attributes.append(f"axis = {qtype.axis}")
    elif qtype.blocked_axis is not None:
        axis = qtype.blocked_axis
        attributes += [f"axis = {axis}", f"block_size = {qtype.block[axis]}"]
    if op == "Encode" and not qtype.zero:
        attributes.append(f"output_dtype = {int(onnx_type(qtype.element))}")
    source, result = ("x", "codes") if op == "Encode" else ("codes", "x")
    name = "QuantizeLinear" if op == "Encode" else "DequantizeLinear"
    options = f"<{', '.join(attributes)}>" if attributes else ""
    held = op == "Encode" and qtype.narrow
    target = "wide" if held else result
    lines.append(f"{target} = {name} {options}({source}, {', '.join(parts)})")
    if held:
        lines += ["steps = Cast<to = 1>(wide)", *_held("steps", qtype)]
    return "\n".join(lines)


def _held(moved: str, qtype: QType) -> list[str]:
    """Whole floats -> codes that end at the limits of the element."""
    low, high = qtype.limits
    return [
        f"low = Constant<value = float {{{low}.0}}>()",
        f"high = Constant<value = float {{{high}.0}}>()",
        f"held = Clip({moved}, low, high)",
        f"codes = Cast<to = {int(onnx_type(qtype.element))}>(held)",
    ]


def _broadcast_body(op: str, qtype: QType) -> str:
    """The same arithmetic spelled out, for scales along several axes (per token, for example)."""
    if any(size > 1 for size in qtype.block):
        raise PipelineError(
            f"{op} has no body for {qtype}", hint="cut one axis into blocks, not several"
        )
    lines = ["real = Cast<to = 1>(scale)"]
    if qtype.zero:
        lines.append("origin = Cast<to = 1>(zero)")
    if op == "Decode":
        lines.append("steps = Cast<to = 1>(codes)")
        lines.append("centred = " + ("Sub(steps, origin)" if qtype.zero else "Identity(steps)"))
        return "\n".join([*lines, "x = Mul(centred, real)"])
    lines += ["ratio = Div(x, real)", "nearest = Round(ratio)"]
    lines.append("moved = " + ("Add(nearest, origin)" if qtype.zero else "Identity(nearest)"))
    return "\n".join([*lines, *_held("moved", qtype)])


def _scale_body(qtype: QType) -> str:
    """Scale (and zero) from the tensor's own range, zero included; keeps the rank unless per
    tensor."""
    if qtype.element == "u8" and qtype.zero == "u8" and qtype.per_tensor:
        return "codes, scale, zero = DynamicQuantizeLinear(x)"  # its arithmetic is the definition
    axes = [i for i, size in enumerate(qtype.block) if size == 0]
    if any(size > 1 for size in qtype.block):
        raise PipelineError(
            f"Scale has no body for {qtype}", hint="use whole axes or single indices"
        )
    keep = 0 if qtype.per_tensor else 1
    reduce = f"<keepdims = {keep}>(END" + ("" if qtype.per_tensor else ", axes") + ")"
    lowest, highest = qtype.limits
    lines = [f"floor = Constant<value = float {{{integer.SCALE_FLOOR}}}>()"]
    lines.append("none = Constant<value = float {0.0}>()")
    if not qtype.per_tensor:
        lines.append(
            f"axes = Constant<value = int64[{len(axes)}] {{{', '.join(map(str, axes))}}}>()"
        )
    if qtype.zero is None:
        lines += ["size = Abs(x)", "top = ReduceMax" + reduce.replace("END", "size")]
        lines += [f"reach = Constant<value = float {{{highest}.0}}>()", "raw = Div(top, reach)"]
        return "\n".join([*lines, "scale = Max(raw, floor)"])
    lines += ["top = ReduceMax" + reduce.replace("END", "x"), "high = Max(top, none)"]
    lines += ["bottom = ReduceMin" + reduce.replace("END", "x"), "low = Min(bottom, none)"]
    lines += [f"steps = Constant<value = float {{{highest - lowest}.0}}>()"]
    lines += ["span = Sub(high, low)", "raw = Div(span, steps)", "scale = Max(raw, floor)"]
    lines += [f"first = Constant<value = float {{{lowest}.0}}>()"]
    lines += [f"last = Constant<value = float {{{highest}.0}}>()"]
    lines += ["offset = Div(low, scale)", "moved = Sub(first, offset)", "whole = Round(moved)"]
    lines += ["held = Clip(whole, first, last)"]
    return "\n".join([*lines, f"zero = Cast<to = {int(onnx_type(qtype.zero))}>(held)"])
