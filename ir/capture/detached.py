"""Copies of a model that refer to no file, and which of its weights are large."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ir.capture.names import nested

# Shapes, axes and scalars stay inline, where readers look for them.
_SMALLEST_LARGE = 1024


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """Those of the main graph, of bodies and of functions."""
    for holder in (model.graph, *model.functions.values()):
        for graph in nested(holder):
            if isinstance(graph, ir.Graph):
                yield from graph.initializers.values()


def is_large(value: ir.Value) -> bool:
    """Whether an initializer holds 1 KiB or more, and no strings."""
    tensor = value.const_value
    return (
        tensor is not None
        and tensor.dtype != ir.DataType.STRING
        and tensor.nbytes >= _SMALLEST_LARGE
    )


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers but strings."""
    return sum(
        value.const_value.nbytes
        for value in initializers(model)
        if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING
    )


def detached(model: ir.Model, *, keep_initializers: bool = False) -> ir.Model:
    """A clone that refers to no file: external tensors become arrays over the mapped file.

    keep_initializers: those of the main graph and of bodies are left as they are.
    """
    copy = model.clone()
    if not keep_initializers:
        for value in initializers(copy):
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = in_memory(value.const_value)
    for holder in (copy.graph, *copy.functions.values()):
        for graph in nested(holder):
            for node in graph:
                _inline_attributes(node)
    return copy


def _inline_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            tensor = attribute.as_tensor()
            if isinstance(tensor, ir.ExternalTensor):
                node.attributes.add(ir.AttrTensor(name, in_memory(tensor)))


def in_memory(tensor: ir.ExternalTensor) -> ir.Tensor:
    """The tensor as an array over its mapped file."""
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)
