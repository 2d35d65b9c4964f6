"""One shape for all captured models: constants are initializers, names unique, dims readable."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from ir.capture.names import bodies, fix_names, nested
from ir.capture.tensors import owned
from ir.errors import CaptureError

# Exporters' words for "some number": two such dimensions are not the same dimension.
_ANONYMOUS = frozenset({"", "?", "None", "none", "unk", "unknown", "-1", "*"})


def canonicalise(model: ir.Model) -> None:
    """Bring `model` to capture's normal form, in place.

    - An initializer is a constant: it leaves the list of inputs, where IR version 3 demanded it
      and later versions allow it (a default value that the caller could replace).
    - Constant nodes become initializers of the graph they stand in; inside a function's own body
      they stay nodes, because a FunctionProto has no initializers.
    - `-1`, `0`, `?` and missing dimensions of the inputs become symbols of their own.
    - Nodes stand in an order in which they can run; names are unique.
    """
    for holder in (model.graph, *model.functions.values()):
        _sort(holder)
        for graph in nested(holder):
            if isinstance(graph, ir.Graph):
                _drop_default_inputs(graph)
                lift_constants(graph)
    name_dimensions(model.graph)
    fix_names(model)


def _drop_default_inputs(graph: ir.Graph) -> None:
    kept = [value for value in graph.inputs if not value.is_initializer()]
    if len(kept) != len(graph.inputs):
        graph.inputs.clear()
        graph.inputs.extend(kept)


def _sort(holder: ir.Graph | ir.Function) -> None:
    if all(_is_sorted(graph) for graph in nested(holder)):
        return
    try:
        holder.sort()
    except ValueError as error:
        raise CaptureError(
            "the graph has a cycle", at=holder.name, hint="a value may not depend on itself"
        ) from error


def _is_sorted(graph: ir.Graph | ir.Function) -> bool:
    """No node reads, itself or through its bodies, what a later node of the graph makes."""
    ready: set[ir.Node] = set()
    owner = graph.graph if isinstance(graph, ir.Function) else graph
    for node in graph:
        for inner in _with_inner(node):
            for value in inner.inputs:
                maker = None if value is None else value.producer()
                if maker is not None and maker.graph is owner and maker not in ready:
                    return False
        ready.add(node)
    return True


def _with_inner(node: ir.Node) -> Iterator[ir.Node]:
    yield node
    for body in bodies(node):
        for inner in body:
            yield from _with_inner(inner)


def lift_constants(graph: ir.Graph) -> None:
    for node in tuple(graph):
        if node.op_type == "Constant" and node.domain == "":
            _lift(node, graph)


def _lift(node: ir.Node, graph: ir.Graph) -> None:
    attributes = list(node.attributes.values())
    if len(attributes) != 1:
        raise CaptureError("a Constant must have exactly one attribute", at=node)
    if attributes[0].is_ref():
        return
    output = node.outputs[0]
    name = output.name
    try:
        tensor = owned(constant_tensor(node, attributes[0]), name)
    except TypeError as error:
        raise CaptureError(
            f"a Constant's '{attributes[0].name}' is of the wrong kind", at=node,
            hint="the model is damaged: export it again",
        ) from error  # fmt: skip
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    value.metadata_props.update(output.metadata_props)
    output.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    graph.register_initializer(value)


def constant_tensor(node: ir.Node, attribute: ir.Attr) -> ir.TensorProtocol:
    """What a Constant node holds, whichever of its attributes says it."""
    match attribute.name:
        case "value":
            return attribute.as_tensor()
        case "value_int" | "value_ints":
            return ir.tensor(np.asarray(attribute.value, dtype=np.int64))
        case "value_float" | "value_floats":
            return ir.tensor(np.asarray(attribute.value, dtype=np.float32))
        case "value_string":
            return ir.StringTensor([str(attribute.value).encode()], shape=ir.Shape([]))
        case "value_strings":
            words = [str(word).encode() for word in attribute.as_strings()]
            return ir.StringTensor(words, shape=ir.Shape([len(words)]))
    raise CaptureError(
        f"a Constant with '{attribute.name}' is not supported",
        at=node,
        hint="store the constant as a dense tensor",
    )


def name_dimensions(graph: ir.Graph) -> None:
    """Give every unknown dimension of the graph's inputs a symbol: `<input>_d<axis>`."""
    taken = {
        dim.value
        for value in graph.inputs
        for dim in (value.shape or ())
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                [_named(value, axis, dim, taken) for axis, dim in enumerate(value.shape)]
            )
    for value in graph.outputs:
        if value.shape is not None and not value.is_initializer():
            value.shape = ir.Shape([None if _unknown(dim) else dim for dim in value.shape])


def _unknown(dim: int | ir.SymbolicDim) -> bool:
    if isinstance(dim, int):
        return dim in (-1, 0)
    return dim.value is None or dim.value.strip() in _ANONYMOUS


def _named(
    value: ir.Value, axis: int, dim: int | ir.SymbolicDim, taken: set[str]
) -> int | ir.SymbolicDim:
    if not _unknown(dim):
        if isinstance(dim, int) and dim < 0:
            raise CaptureError(f"dimension {axis} of an input is {dim}", at=value)
        return dim
    name = f"{value.name}_d{axis}"
    while name in taken:
        name += "_"
    taken.add(name)
    return ir.SymbolicDim(name)
