"""Walking and small questions that every cleanup pass asks."""

from __future__ import annotations

import onnx_ir

from ir.edit import Edit
from ir.graph import Graph, Node, Value


def opset(graph: Graph) -> int:
    """The version of the standard domain that the graph imports."""
    return graph.graph.opset_imports.get("", 25)


def has_body(node: Node) -> bool:
    """Whether the node holds a graph (If, Loop, Scan, SequenceMap)."""
    kinds = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)
    return any(a.type in kinds for a in node.attributes.values())


def has_reference(node: Node) -> bool:
    """Whether an attribute is a parameter of the local function around the node."""
    return any(a.is_ref() for a in node.attributes.values())


def only_reader(value: Value) -> Node | None:
    """The one node that reads a value, once, when nothing else does (nor the graph returns it)."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def drop_unread(edit: Edit, values: list[Value | None]) -> None:
    """Forget the makers and constants of values that a rewrite has stopped reading."""
    for value in values:
        if value is None or value.uses():
            continue
        maker = value.producer()
        if maker is not None:
            edit.remove_dead(maker)
        elif value.is_initializer() and not value.is_graph_input():
            edit.drop_constant(value)
