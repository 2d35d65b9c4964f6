"""Every value and every node of a scope has a name of its own; inputs and outputs keep theirs."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes (bodies of If, Loop, Scan)."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def nested(holder: ir.Graph | ir.Function) -> Iterator[ir.Graph | ir.Function]:
    """The graph (or function) itself, then all bodies inside it, outer ones first."""
    pending: list[ir.Graph | ir.Function] = [holder]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph:
            pending.extend(bodies(node))


def values(graph: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    """Values that the graph itself defines: inputs, initializers, node outputs."""
    yield from graph.inputs
    if isinstance(graph, ir.Graph):
        yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def fix_names(model: ir.Model) -> None:
    """Name what has no name and rename second bearers of a name, in place.

    The main graph with all its bodies is one scope, so that a value can be named without saying
    in which branch it lives; every function is another. Names of the main graph's inputs and
    outputs are the model's interface and stay as they are.
    """
    for holder in (model.graph, *model.functions.values()):
        _Names().run(holder)


class _Names:
    def __init__(self) -> None:
        self.values: set[str] = set()
        self.nodes: set[str] = set()
        self.counts: dict[str, int] = {}

    def run(self, holder: ir.Graph | ir.Function) -> None:
        done: set[int] = set()
        for value in (*holder.inputs, *holder.outputs):
            self._name_value(value, done)
        for graph in nested(holder):
            for value in list(values(graph)):
                self._name_value(value, done)
            for node in graph:
                node.name = self._unique(node.name or node.op_type, self.nodes)

    def _name_value(self, value: ir.Value, done: set[int]) -> None:
        if id(value) in done:
            return
        done.add(id(value))
        if value.name == "" and not value.uses() and not value.is_graph_output():
            return  # an output that the node leaves out
        name = self._unique(value.name or self._stem(value), self.values)
        if name != value.name:
            value.name = name

    @staticmethod
    def _stem(value: ir.Value) -> str:
        node = value.producer()
        return "v" if node is None else f"{node.op_type.lower()}_out"

    def _unique(self, stem: str, taken: set[str]) -> str:
        name = stem
        while name in taken:
            self.counts[stem] = self.counts.get(stem, 0) + 1
            name = f"{stem}_{self.counts[stem]}"
        taken.add(name)
        return name
