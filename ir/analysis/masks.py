"""Values whose large negative entries are a mask on its way to a Softmax, not data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir

from ir.analysis import idioms
from ir.analysis.idioms.base import is_op, number
from ir.graph import QUANT_DOMAIN, Graph, Node, Value, constant, graphs, rank, readers

LARGEST_MASK = -1e3
"""A constant at or below this, added to scores on their way to a Softmax, is a mask."""
_CONSTANT_LIMIT = 1 << 26

MOVES = frozenset(
    (  # noqa: SIM905
        "Cast Identity Expand Slice Gather GatherElements GatherND Concat Unsqueeze Squeeze "
        "Reshape Transpose Flatten Split Tile Pad Trilu Dropout ScatterND ScatterElements "
        "CastLike"
    ).split()
)
"""Ops that only move entries of their first input (Concat: of all)."""
_FLOATS_AT = {"Where": (1, 2), "Concat": None, "ScatterND": (0, 2), "ScatterElements": (0, 2)}
_FLOATS_AT |= {"Pad": (0, 2), "Add": None, "Sub": None, "Mul": None, "Div": (0,), "Min": None}
_FLOATS_AT |= {"Max": None, "Clip": (0,), "Sum": None, "Neg": (0,)}


def masked_values(graph: Graph) -> dict[str, float]:
    """Name of every value that carries mask entries -> its threshold: at or below it is mask.

    A value is on the list when it lies between a large negative constant (finfo.min of any float
    type, -inf, -1e9, -10000, ...) and a Softmax, written out or as an op, or the mask input of an
    Attention. Between the two: casts, moves, Where, sums, products with numbers. The threshold is
    half of the smallest mask entry put in, so scores added to the mask do not hide it. Shapes
    are not needed. Linear in the number of nodes.
    """
    links = _Links(graph)
    upstream = _towards_softmax(graph, links)
    thresholds = _sources(upstream)
    _spread(thresholds, upstream, links)
    named: dict[str, float] = {}
    for key, threshold in thresholds.items():
        name = upstream[key].name
        if name is not None:
            named[name] = max(threshold, named.get(name, -np.inf))
    return named


def padding_inputs(graph: Graph) -> list[str]:
    """Inputs of two axes that act on the outputs through attention masks alone: 1 marks a token, 0
    padding (the convention of tokenizers). What the outputs hold at padding, nobody reads."""
    masked = masked_values(graph)
    if not masked:
        return []
    links = _Links(graph)
    found: dict[int, Value] = {}
    pending = list(graph.graph.outputs)
    while pending:  # all that reaches an output past the masks
        value = pending.pop()
        node = value.producer()
        if id(value) in found:
            continue
        found[id(value)] = value
        pending += links.behind.get(id(value), [])
        if node is not None and not is_op(node, "Shape", "Size"):
            pending += [v for v in node.inputs if v is not None and v.name not in masked]
    return [
        value.name or "" for value in graph.graph.inputs
        if id(value) not in found and rank(value) == 2 and value.uses()
    ]  # fmt: skip


class _Links:
    """Edges that leave a graph: into the bodies of If, Loop and Scan, and of functions."""

    def __init__(self, graph: Graph) -> None:
        self.behind: dict[int, list[Value]] = {}
        self.ahead: dict[int, list[Value]] = {}
        for each in graphs(graph):
            for node in each:
                function = graph.functions.get(node.op_identifier())
                if function is not None and node.domain != QUANT_DOMAIN:
                    self._join(node.inputs, function.inputs)
                    self._join(function.outputs, node.outputs)
                for attribute in node.attributes.values():
                    if attribute.type == onnx_ir.AttributeType.GRAPH:
                        self._body(node, attribute.as_graph())

    def _body(self, node: Node, body: onnx_ir.Graph) -> None:
        skipped = 1 if node.op_type == "Loop" else 0  # the condition is no result
        self._join(body.outputs[skipped:], node.outputs)
        if node.op_type == "Loop":
            self._join(node.inputs[2:], body.inputs[2:])
        elif node.op_type == "Scan":
            self._join(node.inputs, body.inputs)

    def _join(self, sources, targets) -> None:
        for source, target in zip(sources, targets, strict=False):
            if source is not None and target is not None:
                self.behind.setdefault(id(target), []).append(source)
                self.ahead.setdefault(id(source), []).append(target)


def _softmax_inputs(graph: Graph) -> Iterator[Value]:
    for each in graphs(graph):
        for node in each:
            if is_op(node, "Softmax", "LogSoftmax") and node.inputs[0] is not None:
                yield node.inputs[0]
            elif is_op(node, "Attention") and len(node.inputs) > 3 and node.inputs[3] is not None:
                yield node.inputs[3]
    for idiom in idioms.find(graph):
        if idiom.kind in ("Softmax", "Attention"):
            yield from (node.inputs[0] for node in idiom.nodes if is_op(node, "Exp", "Softmax"))  # pyright: ignore[reportReturnType]


def _towards_softmax(graph: Graph, links: _Links) -> dict[int, Value]:
    """Every value that reaches a Softmax through what a mask passes, by id."""
    found: dict[int, Value] = {}
    pending = list(_softmax_inputs(graph))
    while pending:
        value = pending.pop()
        if id(value) in found:
            continue
        found[id(value)] = value
        pending += links.behind.get(id(value), [])
        node = value.producer()
        if node is not None and node.domain in ("", "ai.onnx"):
            pending += _passing_inputs(node)
    return found


def _passing_inputs(node: Node) -> list[Value]:
    """The inputs whose large entries come out again."""
    if node.op_type not in MOVES and node.op_type not in _FLOATS_AT:
        return []
    places = _FLOATS_AT.get(node.op_type, (0,))
    chosen = (
        node.inputs if places is None else [node.inputs[i] for i in places if i < len(node.inputs)]
    )
    return [v for v in chosen if v is not None]


def _sources(upstream: dict[int, Value]) -> dict[int, float]:
    """The mask constants among the values, with their thresholds."""
    found: dict[int, float] = {}
    for key, value in upstream.items():
        lowest = _lowest(value)
        if lowest is not None and lowest <= LARGEST_MASK:
            found[key] = _half(lowest)
        factor = _penalty(value)
        if factor is not None:
            found[key] = -factor / 2
    return found


def _penalty(value: Value) -> float | None:
    """c of (mask - 1) * c or scores - mask * c with a large positive c."""
    node = value.producer()
    if is_op(node, "Sub"):
        node = (
            node.inputs[1].producer() if node is not None and node.inputs[1] is not None else None
        )
    if node is None or not is_op(node, "Mul"):
        return None
    factors = [number(v) for v in node.inputs]
    return next((f for f in factors if f is not None and f >= -LARGEST_MASK), None)


def _half(lowest: float) -> float:
    """Half of the mask entry; a finite number far below any score where the entry is -inf."""
    return max(lowest / 2, -1e30) if np.isinf(lowest) else lowest / 2


def _lowest(value: Value) -> float | None:
    tensor = constant(value)
    node = value.producer()
    if tensor is None and is_op(node, "ConstantOfShape") and "value" in node.attributes:  # pyright: ignore[reportOptionalMemberAccess]
        tensor = node.attributes["value"].as_tensor()  # pyright: ignore[reportOptionalMemberAccess]
    if tensor is None or tensor.size == 0 or tensor.size > _CONSTANT_LIMIT:
        return None
    if not tensor.dtype.is_floating_point():
        return None
    return float(np.min(tensor.numpy().astype(np.float64)))


def _spread(thresholds: dict[int, float], upstream: dict[int, Value], links: _Links) -> None:
    """Carry thresholds from the constants to whatever they reach on the way to a Softmax."""
    pending = [upstream[key] for key in thresholds]
    while pending:
        value = pending.pop()
        threshold = thresholds[id(value)]
        results = [(v, threshold) for v in links.ahead.get(id(value), [])]
        for node, index in readers(value):
            carried = _through(node, index, threshold)
            if carried is not None:
                results += [(v, carried) for v in node.outputs]
        for result, carried in results:
            known = thresholds.get(id(result))
            # a lower threshold met later changes nothing: the highest one covers every path
            if id(result) in upstream and (known is None or carried > known):
                thresholds[id(result)] = carried
                pending.append(result)


def _through(node: Node, index: int, threshold: float) -> float | None:
    """The threshold behind the node, or None where the entries end."""
    if node.domain not in ("", "ai.onnx") or node.inputs[index] not in _passing_inputs(node):
        return None
    if node.op_type in ("Neg", "Sub") and (node.op_type == "Neg" or index == 1):
        return None
    if node.op_type in ("Mul", "Div"):
        factor = number(node.inputs[1 - index])
        if factor is None:
            return threshold
        scaled = (
            threshold * factor if node.op_type == "Mul" else threshold / factor if factor else 0
        )
        return scaled if scaled < 0 else None
    if node.op_type in ("Max", "Clip"):
        bounds = [number(v) for i, v in enumerate(node.inputs) if i != index and i < 2]
        floor = max((b for b in bounds if b is not None), default=-np.inf)
        return None if floor > LARGEST_MASK else max(threshold, floor / 2)
    return threshold
