"""A float32 graph with every number of it in double precision: folds into it round to 1e-16."""

from __future__ import annotations

import numpy as np
import onnx_ir

from ir.edit import Edit
from ir.graph import Graph, Node, clone, graphs

FLOAT, DOUBLE = onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE
TYPES = ("to", "dtype", "output_dtype", "stash_type")
"""Integer attributes that name an element type."""


def doubled(graph: Graph) -> Graph:
    """A copy; inputs and outputs are of doubles as well. The caller's is not touched."""
    copy = clone(graph)
    edit = Edit(copy)
    kept = {id(v) for each in graphs(copy) for node in each for v in _float_only(node)}
    for each in graphs(copy):
        for value in each.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == FLOAT and id(value) not in kept:
                edit.retensor(value, tensor.numpy().astype(np.float64))
        for value in (*each.inputs, *each.initializers.values()):
            if id(value) not in kept:
                _widen(edit, value)
        for node in each:
            for value in node.outputs:
                _widen(edit, value)
            _attributes(node)
    edit.finish()
    return copy


def doubled_feed(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feed.items()}


def _float_only(node: Node) -> list[onnx_ir.Value]:
    """Inputs that ONNX allows as float32 only: the scales of a Resize."""
    held = node.inputs[2] if node.op_type == "Resize" and len(node.inputs) > 2 else None
    return [] if held is None else [held]


def _widen(edit: Edit, value: onnx_ir.Value) -> None:
    if value.dtype == FLOAT:
        edit.retype(value, DOUBLE)


def _attributes(node: Node) -> None:
    for name, attribute in list(node.attributes.items()):
        kind = attribute.type
        if name in TYPES and kind == onnx_ir.AttributeType.INT and attribute.value == FLOAT:
            node.attributes[name] = onnx_ir.AttrInt64(name, int(DOUBLE))
        elif kind == onnx_ir.AttributeType.TENSOR and attribute.value.dtype == FLOAT:
            wide = onnx_ir.Tensor(attribute.value.numpy().astype(np.float64))
            node.attributes[name] = onnx_ir.AttrTensor(name, wide)
