"""From a graph with our ops to one that ONNX Runtime runs with the kernels that were meant.

Kernels are named outright (MatMulIntegerToFloat, QLinearConv, MatMulNBits, DynamicQuantizeLinear):
whether ONNX Runtime's own fusions find a Q/DQ pattern depends on what stands around it. A MatMul of
two axes with a bias, for one, becomes a float Gemm before they look. Fusions are left only what
cannot go wrong silently: DequantizeLinear -> Add -> QuantizeLinear and its like, which check.py
counts. What no kernel takes is left to the functions' own bodies, so that every graph runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backends.base import BODY, BODY_MARK
from ir import formats, ops
from ir.edit import Edit
from ir.graph import Graph, Node, Value, array, clone, constant
from ir.qtype import QType

from .conv import lower_conv
from .linear import lower_linear
from .lookup import lower_lookup
from .patterns import Codes, byte_values, decoded, encoded, float_scale, only_reader, zero_code
from .sites import CONTRIB, LOADED, Refused, Site
from .token import lower_token, token_values
from .weight_only import PACKED_BITS, decode_when_loading, lower_packed

LINEAR = ("MatMul", "Gemm", "Conv")
CARRIERS = {
    "Add": "QLinearAdd", "Mul": "QLinearMul", "Concat": "QLinearConcat",
    "AveragePool": "QLinearAveragePool", "GlobalAveragePool": "QLinearGlobalAveragePool",
    "Sigmoid": "QLinearSigmoid", "LeakyRelu": "QLinearLeakyRelu", "Softmax": "QLinearSoftmax",
}  # fmt: skip
"""Ops that ONNX Runtime fuses into an integer kernel when all they read and write are u8 codes."""


REQUANTIZED = ("Conv", "ConvTranspose", "Gemm")


@dataclass
class Lowered:
    """The graph for ONNX Runtime, and what became of every node with codes."""

    graph: Graph
    sites: list[Site] = field(default_factory=list)


def lower(graph: Graph) -> Lowered:
    """Lower a graph; the caller's is not touched. Values keep their names and meaning."""
    made = Lowered(clone(graph))
    edit = Edit(made.graph, by="ort")
    for node in _nodes(made.graph):
        if ops.is_op(node, "Encode"):
            _fold_constant(edit, node)
    for node in _nodes(made.graph):
        if ops.is_op(node, "Scale"):
            _dynamic(edit, node)
    for node in _nodes(made.graph):
        if not node.domain and node.op_type in LINEAR:
            site = _linear(edit, node)
            if site is not None:
                made.sites.append(site)
    for node in _nodes(made.graph):
        if not node.domain and node.op_type == "Gather":
            site = _lookup(edit, node)
            if site is not None:
                made.sites.append(site)
    made.sites += [site for site in map(_carrier, _nodes(made.graph)) if site is not None]
    for node in _nodes(made.graph):
        _native(edit, node)
    for node in _nodes(made.graph):
        _keep_float(edit, node)
    made.graph.graph.opset_imports.setdefault(CONTRIB, 1)
    edit.finish()
    _drop_unread(made.graph)
    return made


def _nodes(graph: Graph) -> list[Node]:
    """Nodes of the main graph and of its bodies. (Local functions are left to ONNX Runtime.)"""
    return list(graph.graph.all_nodes())


def _fold_constant(edit: Edit, node: Node) -> None:
    """Encode of a constant: its codes (plain rounding, where no pass has chosen them)."""
    data, found = array(node.inputs[0]), encoded(node)
    assert found is not None
    if data is None or not found.static:
        return
    scale, zero = array(found.scale), None if found.zero is None else array(found.zero)
    assert scale is not None
    codes = formats.encode(data, scale, zero, found.qtype)
    edit.replace(found.codes, edit.constant(codes, f"{node.inputs[0].name}.codes"))  # type: ignore[union-attr]
    edit.remove(node)


def _dynamic(edit: Edit, scale: Node) -> None:
    """Scale and the Encodes that use it become one DynamicQuantizeLinear."""
    if scale.overload != str(QType.parse("u8@0*f32+u8")):
        return
    x = scale.inputs[0]
    assert x is not None
    encodes = [
        use.node for use in scale.outputs[0].uses()
        if ops.is_op(use.node, "Encode") and use.node.inputs[0] is x
        and list(use.node.inputs[1:]) == list(scale.outputs) and use.node.overload == scale.overload
    ]  # fmt: skip
    if not encodes:
        return
    like = f"{x.name}.dynamic"
    made = edit.node("DynamicQuantizeLinear", [x], like=like, outputs=3, before=scale)
    for encode in encodes:
        edit.replace(encode.outputs[0], made.outputs[0])
        edit.remove(encode)
    for old, new in zip(scale.outputs, made.outputs[1:], strict=True):
        edit.replace(old, new)
    edit.remove(scale)


def _linear(edit: Edit, node: Node) -> Site | None:
    """The integer kernel of a linear layer whose weight is coded, or the reason why it has none."""
    x, weight = decoded(node.inputs[0]), decoded(node.inputs[1])
    if weight is None or constant(weight.codes) is None:
        return None
    name = node.name or ""
    if x is not None and BODY_MARK in node.metadata_props:
        reason = node.metadata_props[BODY_MARK]
        return Site(name, node.op_type, BODY, x.codes.name or "", reason)
    take: Callable[[], Site]
    if x is not None and byte_values(x):
        lowering = lower_conv if node.op_type == "Conv" else lower_linear
        take = lambda: lowering(edit, node, x, weight)  # noqa: E731
    elif x is not None and token_values(x) and node.op_type != "Conv":
        take = lambda: lower_token(edit, node, x, weight)  # noqa: E731
    elif x is not None:
        reason = f"integer kernels read u8@0 values, or i8 with a scale a token, not {x.qtype}"
        return Site(name, node.op_type, "", reason=reason)
    elif node.op_type == "Conv" or not weight.qtype.integer or weight.qtype.bits not in PACKED_BITS:
        return Site(name, node.op_type, LOADED)
    else:
        take = lambda: lower_packed(edit, node, weight)  # noqa: E731
    try:
        return take()
    except Refused as refused:
        return Site(name, node.op_type, "", reason=str(refused))


def _lookup(edit: Edit, node: Node) -> Site | None:
    """A Gather from a coded table."""
    table = decoded(node.inputs[0])
    if table is None or not table.constant:
        return None
    try:
        return lower_lookup(edit, node, table)
    except Refused:
        return Site(node.name or "", node.op_type, LOADED)


def _carrier(node: Node) -> Site | None:
    """A node between codes, which ONNX Runtime's fusions are to find."""
    if node.domain or node.op_type not in CARRIERS:
        return None
    floats = [v for v in node.inputs if v is not None]
    if not floats or not all(byte_values(decoded(v)) for v in floats):
        return None
    reader = only_reader(node.outputs[0])
    if reader is not None and reader.op_type == "Relu" and not reader.domain:
        reader = only_reader(reader.outputs[0])  # absorbed where zero is code 0
    if not byte_values(encoded(reader)):
        return None
    return Site(node.name or "", node.op_type, CARRIERS[node.op_type])


def _native(edit: Edit, node: Node) -> None:
    """Encode and Decode of whole tensors as QuantizeLinear and its inverse; weights decoded."""
    found = decoded(node.outputs[0]) if ops.is_op(node, "Decode") else encoded(node)
    if found is None:
        return
    if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
        edit.remove(node)
    elif ops.is_op(node, "Decode") and found.constant and found.qtype.integer:
        decode_when_loading(edit, node, found)
    elif byte_values(found):
        _byte_linear(edit, node, found)


def _byte_linear(edit: Edit, node: Node, found: Codes) -> None:
    op = "QuantizeLinear" if node.op_type == "Encode" else "DequantizeLinear"
    source, result = node.inputs[0], node.outputs[0]
    parts: list[Value] = [float_scale(edit, found), zero_code(edit, found)]
    made = edit.node(op, [source, *parts], like=f"{result.name}.{op}", before=node)
    edit.replace(result, made.outputs[0])
    edit.remove(node)


def _keep_float(edit: Edit, node: Node) -> None:
    """Hide a decoded input from a layer that stays float.

    ONNX Runtime rounds float weights between a DequantizeLinear and a QuantizeLinear to 8 bits by
    itself, unasked and into codes that saturate. A Clip at the ends of float32 stands in its way.
    """
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.domain or node.op_type not in REQUANTIZED or source is None:
        return
    if not ops.is_op(source, "Decode") and (source.op_type != "DequantizeLinear" or source.domain):
        return
    ends = [
        edit.constant(np.array(end, np.float32), f"{node.name}.end")
        for end in (np.finfo(np.float32).min, np.finfo(np.float32).max)
    ]
    like = f"{source.outputs[0].name}.float"
    held = edit.node("Clip", [source.outputs[0], *ends], like=like, before=node)
    edit.set_input(node, 0, held.outputs[0])


def _drop_unread(graph: Graph) -> None:
    """Forget the initializers that nothing reads any more: they would only make the file larger."""
    outputs = set(graph.graph.outputs)
    for name, value in list(graph.graph.initializers.items()):
        if not value.uses() and value not in outputs and not value.is_graph_input():
            del graph.graph.initializers[name]
