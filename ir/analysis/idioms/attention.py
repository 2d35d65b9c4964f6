"""Softmax written as exp and sum, and scaled-dot-product attention around a Softmax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ir.analysis.idioms.base import (
    Idiom,
    axes_of,
    back,
    is_op,
    number,
    origin,
    producer,
    reader,
)
from ir.graph import Node, Value, attribute, rank, readers, scalar

Steps = tuple[tuple[str, object], ...]


def softmax(anchor: Node) -> Iterator[Idiom]:
    """exp(x - max x) / sum, or without the maximum, from the Exp."""
    total = producer_among(anchor.outputs[0], "ReduceSum")
    axes = None if total is None else axes_of(total, anchor.outputs[0])
    if total is None or axes is None or len(axes) != 1:
        return
    nodes: list[Node] = [anchor, total]
    end = reader(total.outputs[0], nodes, "Div")
    if end is None or origin(end.inputs[0]) is not anchor.outputs[0]:
        return
    x = anchor.inputs[0]
    sub = producer(x, "Sub")
    peak = None if sub is None else producer(back(sub.inputs[1], nodes), "ReduceMax")
    same_axes = peak is not None and axes_of(peak, peak.inputs[0]) == axes
    if sub is not None and peak is not None and same_axes:
        if origin(peak.inputs[0]) is not origin(sub.inputs[0]):
            return
        nodes += [sub, peak]
        x = sub.inputs[0]
    nodes.append(end)
    unique = tuple({id(n): n for n in nodes}.values())
    yield Idiom("Softmax", unique, (x,), (end.outputs[0],), {"axis": axes[0]})


def producer_among(value: Value, op_type: str) -> Node | None:
    """The first reader of the value that is this op."""
    return next((n for n, _ in readers(value) if is_op(n, op_type)), None)


@dataclass
class _Scores:
    """What stands between Softmax and the product of queries and keys."""

    nodes: list[Node] = field(default_factory=list)
    masks: list[tuple[Value, Steps]] = field(default_factory=list)
    scale: float = 1.0
    product: Node | None = None


def attention(anchor: Node) -> Iterator[Idiom]:
    """softmax(scale q k' + mask) v, from its Softmax (over the last axis)."""
    size = rank(anchor.inputs[0]) or rank(anchor.outputs[0])
    axis = attribute(anchor, "axis", -1)
    if axis == -1 or (size is not None and axis == size - 1):
        yield from _around(anchor.inputs[0], anchor.outputs[0], (anchor,))


def attention_around(soft: Idiom) -> Iterator[Idiom]:
    """The same around a Softmax that is itself written out."""
    if soft.attributes["axis"] == -1:
        yield from _around(soft.inputs[0], soft.outputs[0], soft.nodes)


def _around(before: Value | None, after: Value, middle: tuple[Node, ...]) -> Iterator[Idiom]:
    scores = _scores(before, _Scores(), depth=6)
    if scores is None or scores.product is None:
        return
    tail: list[Node] = []
    extra: dict = {}
    last = _weighted_sum(after, tail, extra)
    if last is None:
        return
    q, q_scale = _unscaled(scores.product.inputs[0], scores.nodes)
    k, k_scale = _unscaled(scores.product.inputs[1], scores.nodes)
    k, k_steps, k_scale = _transposed_back(k, k_scale, scores.nodes)
    v = last.inputs[1]
    size = rank(v) or rank(last.outputs[0]) or rank(q)
    if size not in (3, 4) or (size == 3 and scores.masks) or q is None or k is None:
        return
    attributes: dict = {"scale": scores.scale * q_scale * k_scale}
    if size == 3:
        attributes |= {"q_num_heads": 1, "kv_num_heads": 1}
    prepare = {1: k_steps} if k_steps else {}
    k, v = _grouped(k, v, bool(k_steps), scores.nodes)
    inputs: list[Value | None] = [q, k, v]
    for index, (mask, steps) in enumerate(scores.masks):
        if (rank(mask) or 0) < 2:
            return
        inputs.append(mask)
        if steps:
            prepare[3 + index] = steps
    if len(scores.masks) > 1:
        extra["masks"] = len(scores.masks)
    nodes = {id(n): n for n in (*scores.nodes, scores.product, *middle, *tail, last)}
    outputs = (last.outputs[0],)
    yield Idiom(
        "Attention", tuple(nodes.values()), tuple(inputs), outputs, attributes, prepare, extra
    )


def _weighted_sum(value: Value, nodes: list[Node], extra: dict) -> Node | None:
    """The MatMul with the values, past Dropout and the guard against rows masked whole."""
    guard = producer_among(value, "IsNaN")
    if guard is not None:
        where = reader(guard.outputs[0], nodes, "Where")
        if where is None or origin(where.inputs[2]) is not value or number(where.inputs[1]) != 0:
            return None
        nodes += [guard, where]
        extra["nan_guard"] = True
        value = where.outputs[0]
    dropout = reader(value, nodes, "Dropout")
    if dropout is not None and inactive(dropout):
        nodes.append(dropout)
        value = dropout.outputs[0]
    product = reader(value, nodes, "MatMul")
    if product is None or origin(product.inputs[0]) is not origin(value):
        return None
    return product


def inactive(dropout: Node) -> bool:
    """Whether a Dropout node does nothing: its training flag is absent or constant false."""
    if attribute(dropout, "is_test", 1) != 1:
        return False
    flag = dropout.inputs[2] if len(dropout.inputs) > 2 else None
    mask_read = len(dropout.outputs) > 1 and (
        readers(dropout.outputs[1]) or dropout.outputs[1].is_graph_output()
    )
    return not mask_read and (flag is None or scalar(flag) == 0)


def _scores(value: Value | None, found: _Scores, depth: int) -> _Scores | None:
    """Walk from Softmax's input to the product, noting scale and masks."""
    value = back(value, found.nodes)
    node = producer(value, "MatMul", "Mul", "Div", "Add", "Where")
    if node is None or depth == 0:
        return None
    if node.op_type == "MatMul":
        found.product = node
        return found
    if node.op_type in ("Mul", "Div"):
        return _scaled_scores(node, found, depth)
    if node.op_type == "Where":
        return _selected_scores(node, found, depth)
    for index in (0, 1):
        attempt = _Scores(list(found.nodes), list(found.masks), found.scale)
        mask = node.inputs[1 - index]
        done = _scores(node.inputs[index], attempt, depth - 1)
        if done is not None and mask is not None:
            # a mask added before the scaling is scaled with the scores
            if found.scale != 1.0:
                return None
            done.nodes.append(node)
            done.masks.append((mask, ()))
            return done
    return None


def _scaled_scores(node: Node, found: _Scores, depth: int) -> _Scores | None:
    first, second = scalar(node.inputs[0]), scalar(node.inputs[1])
    factor = second if second is not None else first if node.op_type == "Mul" else None
    if factor is None or factor == 0:
        return None
    found.nodes.append(node)
    found.scale *= factor if node.op_type == "Mul" else 1.0 / factor
    return _scores(node.inputs[0 if second is not None else 1], found, depth - 1)


def _selected_scores(node: Node, found: _Scores, depth: int) -> _Scores | None:
    """Where(cond, scores, -large) as an additive mask Where(cond, 0, -large), or the other way."""
    for index in (1, 2):
        filler = number(node.inputs[3 - index])
        if filler is None or filler > -1e3 or found.scale != 1.0:
            continue
        done = _scores(node.inputs[index], found, depth - 1)
        condition = node.inputs[0]
        if done is None or condition is None:
            return None
        done.nodes.append(node)
        pair = (0.0, filler) if index == 1 else (filler, 0.0)
        done.masks.append((condition, (("Where", pair),)))
        return done
    return None


def _unscaled(value: Value | None, nodes: list[Node]) -> tuple[Value | None, float]:
    """The value before a Mul or Div by a number that nobody else reads, and the factor."""
    passed: list[Node] = []
    node = producer(back(value, passed), "Mul", "Div")
    if node is None or len(readers(node.outputs[0])) != 1:
        return value, 1.0
    first, second = scalar(node.inputs[0]), scalar(node.inputs[1])
    if second:
        nodes += [*passed, node]
        return node.inputs[0], second if node.op_type == "Mul" else 1.0 / second
    if first is not None and node.op_type == "Mul":
        nodes += [*passed, node]
        return node.inputs[1], first
    return value, 1.0


def _transposed_back(
    k: Value | None, scale: float, nodes: list[Node]
) -> tuple[Value | None, Steps, float]:
    """The keys before their transposition, and the permutation to [..., tokens, channels]."""
    node = producer(k, "Transpose")
    perm = None if node is None else attribute(node, "perm")
    if node is None or perm is None or len(readers(node.outputs[0])) != 1:
        size = rank(k)
        if size is None:
            return None, (), scale
        return k, (("Transpose", (*range(size - 2), size - 1, size - 2)),), scale
    nodes.append(node)
    perm = (*perm[:-2], perm[-1], perm[-2])
    steps: Steps = () if perm == tuple(range(len(perm))) else (("Transpose", perm),)
    value, factor = _unscaled(node.inputs[0], nodes)
    return value, steps, scale * factor


def _grouped(
    k: Value | None, v: Value | None, moved: bool, nodes: list[Node]
) -> tuple[Value | None, Value | None]:
    """Keys and values before their heads were repeated for the query heads of a group."""
    k_nodes, v_nodes = [], []
    few_k, few_v = _before_repeat(k, k_nodes), _before_repeat(v, v_nodes)
    if moved or few_k is None or few_v is None:
        return k, v
    nodes += k_nodes + v_nodes
    return few_k, few_v


def _before_repeat(value: Value | None, nodes: list[Node]) -> Value | None:
    """x [B, H, S, D] where value = Reshape(Expand(Unsqueeze(x, 2))) repeats each head."""
    reshape = producer(value, "Reshape")
    expand = producer(reshape.inputs[0], "Expand") if reshape else None
    wide = producer(expand.inputs[0], "Unsqueeze", "Reshape") if expand else None
    if reshape is None or expand is None or wide is None or rank(value) != 4:
        return None
    x, opened = wide.inputs[0], wide.outputs[0]
    if x is None or x.shape is None or opened.shape is None or len(x.shape) != 4:
        return None
    same = [*x.shape[:2], 1, *x.shape[2:]] == list(opened.shape)
    ends = value is not None and value.shape is not None and value.shape[2:] == x.shape[2:]
    if not same or not ends or expand.outputs[0].shape is None:
        return None
    nodes += [reshape, expand, wide]
    return x
