"""What must hold of a ModelProto before its names can be turned into edges at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from ir.capture.tensors import Base, check_tensor
from ir.errors import CaptureError

# A function expands at every call; a few dozen lines can mean 2^50 nodes to who inlines them.
_MOST_EXPANDED_NODES = 10_000_000
_NOWHERE = Base(None)


def check_proto(proto: onnx.ModelProto, base: Base = _NOWHERE) -> None:
    """Raise CaptureError unless names are defined once and before use, and all tensors are sound.

    base: where external data must lie.
    Linear in nodes; reads no weight.
    """
    if not proto.HasField("graph"):
        raise CaptureError("no graph inside", hint="is this an ONNX model at all?")
    _check_graph(proto.graph, frozenset(), base)
    keys = [(f.domain, f.name, f.overload) for f in proto.functions]
    _check_text([name for key in keys for name in key], "a function")
    if len(set(keys)) != len(keys):
        raise CaptureError("two local functions have the same name")
    for function in proto.functions:
        _check_unique(function.input, f"inputs of function '{function.name}'")
        names = set(function.input)
        _check_nodes(function.node, names, base, f"function '{function.name}'")
        _check_outputs(function.output, names, f"function '{function.name}'")
    _check_calls(proto)


def _check_graph(graph: onnx.GraphProto, outer: frozenset[str], base: Base) -> None:
    where = f"graph '{graph.name}'"
    inputs = [value.name for value in graph.input]
    weights = [tensor.name for tensor in graph.initializer]
    _check_text((graph.name, *inputs, *weights), "a graph")
    _check_unique(inputs, f"inputs of {where}")
    _check_unique(weights, f"initializers of {where}")
    if graph.sparse_initializer:
        raise CaptureError(
            "sparse initializers are not supported", at=where, hint="store them as dense tensors"
        )
    for tensor in graph.initializer:
        check_tensor(tensor, base, "initializer")
    own = set(inputs) | set(weights)
    _check_nodes(graph.node, own, base, where, outer)
    _check_outputs((value.name for value in graph.output), own, where, outer)


def _check_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise CaptureError(f"a nameless value among the {what}")
        if name in seen:
            raise CaptureError(f"'{name}' is defined twice among the {what}")
        seen.add(name)


def _check_nodes(
    nodes: Iterable[onnx.NodeProto],
    own: set[str],
    base: Base,
    where: str,
    outer: frozenset[str] = frozenset(),
) -> None:
    """Add the nodes' outputs to `own`; every input must be in `own`, an outer scope or made here.

    Nodes may stand in any order: they are sorted later, which is when a cycle shows.
    """
    nodes = list(nodes)
    for node in nodes:
        attributes = [attribute.name for attribute in node.attribute]
        names = (node.op_type, node.domain, node.name, node.overload, *node.input, *node.output)
        _check_text((*names, *attributes), f"a node in {where}")
        for name in filter(None, node.output):
            if name in own:
                raise CaptureError(
                    f"value '{name}' is defined twice in {where}",
                    at=_label(node),
                    hint="every value must have one producer",
                )
            own.add(name)
    scope: frozenset[str] | None = None
    for node in nodes:
        for name in filter(None, node.input):
            if name not in own and name not in outer:
                raise CaptureError(
                    f"input '{name}' is defined nowhere in {where}",
                    at=_label(node),
                    hint="the model is damaged: export it again",
                )
        for attribute in node.attribute:
            _check_constants(attribute, base, _label(node))
            for body in _bodies(attribute):
                scope = outer | own if scope is None else scope
                _check_graph(body, scope, base)


def _check_text(texts: Iterable[str | bytes], at: str) -> None:
    """Protobuf hands out bytes where a name is not UTF-8, which no other code reckons with."""
    if any(isinstance(text, bytes) for text in texts):
        raise CaptureError("a name is not text", at=at, hint="fetch or export the model again")


def _check_outputs(
    outputs: Iterable[str], own: set[str], where: str, outer: frozenset[str] = frozenset()
) -> None:
    for name in outputs:
        if name not in own and name not in outer:
            raise CaptureError(
                f"output '{name}' of {where} is computed nowhere", hint="export the model again"
            )


def _bodies(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _check_constants(attribute: onnx.AttributeProto, base: Base, at: str) -> None:
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise CaptureError(
            "sparse tensors are not supported", at=at, hint="store them as dense tensors"
        )
    single = [attribute.t] if attribute.HasField("t") else []
    for tensor in (*single, *attribute.tensors):
        check_tensor(tensor, base, f"constant of {at}")


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} '{node.name}'"


def _check_calls(proto: onnx.ModelProto) -> None:
    """No function may reach itself, nor expand beyond all bounds through calls of calls."""
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    if not functions:
        return
    import networkx as nx  # a tenth of a second that models without functions need not pay

    calls = nx.DiGraph()
    calls.add_nodes_from(functions)
    counts: dict[tuple, list[tuple]] = {}
    for key, function in functions.items():
        counts[key] = [_key(node) for node in _all_nodes(function.node)]
        calls.add_edges_from((key, callee) for callee in counts[key] if callee in functions)
    try:
        order = list(nx.topological_sort(calls))
    except nx.NetworkXUnfeasible:
        cycle = " -> ".join(key[1] for key, _ in nx.find_cycle(calls))
        raise CaptureError(
            f"local functions call themselves: {cycle}", hint="ONNX has no recursion"
        ) from None
    size: dict[tuple, int] = {}
    for key in reversed(order):
        size[key] = sum(size.get(callee, 1) for callee in counts[key])
    total = sum(size.get(_key(node), 1) for node in _all_nodes(proto.graph.node))
    if total > _MOST_EXPANDED_NODES:
        raise CaptureError(f"the local functions expand to {total} nodes")


def _key(node: onnx.NodeProto) -> tuple[str, str, str]:
    return (node.domain, node.op_type, node.overload)


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in _bodies(attribute):
                yield from _all_nodes(body.node)
