"""Rotary position embedding: rotate-half and interleaved, as the exporters spell it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ir.analysis.idioms.base import Idiom, back, is_op, origin, producer, reader
from ir.analysis.shapes import dims
from ir.graph import Node, Value, attribute, constant, rank, readers

_TABLE_LIMIT = 1 << 22
Part = tuple[Value, tuple[str, int]]
"""A piece of a value: (whole, ("half", 0 or 1)) or (whole, ("step", 0 or 1))."""


def rotated(anchor: Node) -> Iterator[Idiom]:
    """x cos + rotate(x) sin, from the Neg in rotate(x) = concat(-second, first)."""
    nodes: list[Node] = [anchor]
    second = part(anchor.inputs[0], nodes)
    if second is None or second[1][1] != 1:
        return
    turned = _joined(anchor, second, nodes)
    if turned is None:
        return
    times_sin = reader(turned, nodes, "Mul")
    end = None if times_sin is None else reader(times_sin.outputs[0], nodes, "Add")
    if times_sin is None or end is None:
        return
    sin = _operand_beside(times_sin, turned)
    times_cos = producer(_operand_beside(end, times_sin.outputs[0]), "Mul")
    x = second[0]
    if times_cos is None or not any(origin(v) is origin(x) for v in times_cos.inputs):
        return
    cos = _operand_beside(times_cos, x)
    interleaved = second[1][0] == "step"
    if sin is None or cos is None or not _tables_match(cos, sin, interleaved):
        return
    nodes += [times_sin, times_cos, end]
    keep = "even" if interleaved else "half"
    yield _idiom(nodes, (x, cos, sin), end.outputs[0], interleaved, keep)


def paired(anchor: Node) -> Iterator[Idiom]:
    """concat or stack of (a cos - b sin, b cos + a sin), a and b the parts of x, from the Sub."""
    nodes: list[Node] = [anchor]
    minus = _two_products(anchor, nodes)
    if minus is None:
        return
    (a, cos), (b, sin) = minus
    if a[0] is not b[0] or a[1][0] != b[1][0] or (a[1][1], b[1][1]) != (0, 1):
        return
    for add in _adds_of_parts(a, b, cos, sin, nodes):
        end = _both_joined(anchor, add, a[1][0], nodes)
        if end is not None:
            yield _idiom(nodes, (a[0], cos, sin), end, a[1][0] == "step", "whole")
            return


def _idiom(nodes, inputs, output, interleaved: bool, keep: str) -> Idiom:
    """The standard op, with steps that make [batch, tokens, channels/2] tables of cos and sin."""
    table = (("Table", keep),)
    attributes = {"interleaved": int(interleaved), "rotary_embedding_dim": 0}
    unique = tuple({id(n): n for n in nodes}.values())
    extra = {} if rank(inputs[0]) == 4 else {"rank": rank(inputs[0])}
    prepare = {1: table, 2: table}
    return Idiom("RotaryEmbedding", unique, inputs, (output,), attributes, prepare, extra)


def part(value: Value | None, nodes: list[Node]) -> Part | None:
    """Which half, or which of the even and odd channels, of which value this is."""
    value = back(value, passed := [])
    node = producer(value, "Slice", "Split", "Gather", "Squeeze")
    if node is None or value is None:
        return None
    found: Part | None = None
    if node.op_type == "Slice":
        found = _sliced(node)
    elif node.op_type == "Split" and len(node.outputs) == 2 and _last_axis(node, node.inputs[0]):
        if dims(node.outputs[0]) == dims(node.outputs[1]) and node.inputs[0] is not None:
            found = node.inputs[0], ("half", value.index() or 0)
    elif node.op_type in ("Gather", "Squeeze"):
        found = _from_pairs(node, passed)
    if found is not None:
        nodes += [*passed, node]
    return found


def _sliced(node: Node) -> Part | None:
    x = node.inputs[0]
    shape = dims(x)
    parameters = [_integer(v) for v in node.inputs[1:5]] + [1] * (5 - len(node.inputs))
    if x is None or shape is None or len(parameters) < 4:
        return None
    start, stop, axis, step = parameters
    last = shape[-1]
    if axis not in (-1, len(shape) - 1) or not isinstance(last, int) or last % 2:
        return None
    if start is None or stop is None:
        return _computed_half(node, x, start, last // 2) if step == 1 else None
    if step == 2 and start in (0, 1) and stop >= last - 1:
        return x, ("step", start)
    start, stop = (n + last if n < 0 else min(n, last) for n in (start, stop))
    if step == 1 and stop - start == last // 2 and start in (0, last // 2):
        return x, ("half", int(start > 0))
    return None


def _computed_half(node: Node, x: Value, start: int | None, half: int) -> Part | None:
    """A half whose bounds are computed; the second half starts where the first one stops."""
    if (dims(node.outputs[0]) or (None,))[-1] != half:
        return None
    if start == 0:
        return x, ("half", 0)
    middle = node.inputs[1]
    for first, index in readers(middle) if middle is not None and start is None else ():
        if is_op(first, "Slice") and index == 2 and first.inputs[0] is x:
            begins, sizes = _integer(first.inputs[1]), dims(first.outputs[0])
            if begins == 0 and sizes is not None and sizes[-1] == half:
                return x, ("half", 1)
    return None


def _from_pairs(node: Node, passed: list[Node]) -> Part | None:
    """Element 0 or 1 of the last axis of Reshape(x, [..., channels/2, 2])."""
    inner = node
    index: int | None = None
    if node.op_type == "Squeeze":
        split = producer(node.inputs[0], "Split")
        slicer = producer(node.inputs[0], "Slice", "Gather")
        if split is not None and node.inputs[0] is not None:
            inner, index = split, node.inputs[0].index()
        elif slicer is not None:
            inner = slicer
            index = _integer(slicer.inputs[1])
        passed.append(inner)
    elif constant(node.inputs[1]) is not None:
        index = _integer(node.inputs[1])
    pairs = inner.inputs[0]
    shape = dims(pairs)
    if shape is None or shape[-1] != 2 or index not in (0, 1, -1):
        return None
    reshape = producer(pairs, "Reshape")
    if not _last_axis(inner, pairs) or reshape is None or reshape.inputs[0] is None:
        return None
    passed.append(reshape)
    return reshape.inputs[0], ("step", index % 2)


def _last_axis(node: Node, value: Value | None) -> bool:
    size = rank(value)
    axis = attribute(node, "axis", 0)
    if node.op_type == "Slice":
        axis = _integer(node.inputs[3]) if len(node.inputs) > 3 else None
    return axis == -1 or (size is not None and axis == size - 1)


def _integer(value: Value | None) -> int | None:
    tensor = constant(value)
    return int(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None


def _joined(neg: Node, second: Part, nodes: list[Node]) -> Value | None:
    """rotate(x), given its first piece -second: the Concat (and Reshape, when interleaved)."""
    halves = second[1][0] == "half"
    piece = neg.outputs[0] if halves else _unsqueezed(neg.outputs[0], nodes)
    join = None if piece is None else reader(piece, nodes, "Concat")
    if join is None or len(join.inputs) != 2 or origin(join.inputs[0]) is not origin(piece):
        return None
    if not _last_axis(join, join.outputs[0]):
        return None
    nodes.append(join)
    first = join.inputs[1]
    if not halves:
        wide = producer(first, "Unsqueeze")
        if wide is None:
            return None
        nodes.append(wide)
        first = wide.inputs[0]
    found = part(first, nodes)
    if found is None or found[0] is not second[0] or found[1] != (second[1][0], 0):
        return None
    return join.outputs[0] if halves else _flattened(join, nodes)


def _unsqueezed(value: Value, nodes: list[Node]) -> Value | None:
    node = reader(value, nodes, "Unsqueeze")
    if node is None:
        return None
    nodes.append(node)
    return node.outputs[0]


def _flattened(join: Node, nodes: list[Node]) -> Value | None:
    shape = dims(join.outputs[0])
    node = reader(join.outputs[0], nodes, "Reshape")
    if node is None or shape is None or shape[-1] != 2 or rank(node.outputs[0]) != len(shape) - 1:
        return None
    nodes.append(node)
    return node.outputs[0]


def _operand_beside(node: Node, value: Value) -> Value | None:
    first, second = node.inputs[:2]
    return second if origin(first) is origin(value) else first


def _two_products(node: Node, nodes: list[Node]):
    """((a, table), (b, table)) where the node combines a*table and b*table of parts a, b."""
    found = []
    for value in node.inputs:
        product = producer(value, "Mul")
        if product is None:
            return None
        for index in (0, 1):
            piece = part(product.inputs[index], nodes)
            table = product.inputs[1 - index]
            if piece is not None and table is not None:
                nodes.append(product)
                found.append((piece, table))
                break
    return found if len(found) == 2 else None


def _adds_of_parts(a: Part, b: Part, cos: Value, sin: Value, nodes: list[Node]) -> Iterator[Node]:
    """The Add of b cos and a sin, among what reads the products with sin."""
    for times_sin, _ in readers(sin):
        if not is_op(times_sin, "Mul"):
            continue
        for add, _ in readers(times_sin.outputs[0]):
            if not is_op(add, "Add"):
                continue
            passed: list[Node] = [add]
            pairs = _two_products(add, passed) or []
            found = {(piece[1], id(table)) for piece, table in pairs if piece[0] is a[0]}
            if found == {(b[1], id(cos)), (a[1], id(sin))}:
                nodes += passed
                yield add


def _both_joined(sub: Node, add: Node, how: str, nodes: list[Node]) -> Value | None:
    pieces = [sub.outputs[0], add.outputs[0]]
    if how == "step":
        pieces = [_unsqueezed(v, nodes) for v in pieces]
    if pieces[0] is None or pieces[1] is None:
        return None
    join = reader(pieces[0], nodes, "Concat")
    if join is None or len(join.inputs) != 2 or not _last_axis(join, join.outputs[0]):
        return None
    if any(origin(v) is not origin(p) for v, p in zip(join.inputs, pieces, strict=True)):
        return None
    nodes.append(join)
    return join.outputs[0] if how == "half" else _flattened(join, nodes)


def _tables_match(cos: Value, sin: Value, interleaved: bool) -> bool:
    """Whether both tables hold every angle twice, as the standard op has them once."""
    return all(_angle_twice(table, interleaved) for table in (cos, sin))


def _angle_twice(table: Value, interleaved: bool) -> bool:
    tensor = constant(table)
    if tensor is not None:
        if tensor.size > _TABLE_LIMIT:
            return False
        rows = np.asarray(tensor.numpy())
        half = rows.shape[-1] // 2
        pairs = (
            (rows[..., ::2], rows[..., 1::2])
            if interleaved
            else (rows[..., :half], rows[..., half:])
        )
        return rows.shape[-1] % 2 == 0 and bool(np.array_equal(*pairs))
    passing = ("Cos", "Sin", "Cast", "Identity", "Unsqueeze", "Mul", "Gather", "Slice")
    value: Value | None = table
    for _ in range(12):
        node = producer(value, *passing, "Concat")
        if node is None:
            return False
        if node.op_type == "Concat":
            same = len(node.inputs) == 2 and origin(node.inputs[0]) is origin(node.inputs[1])
            return same and not interleaved and _last_axis(node, node.outputs[0])
        if node.op_type in ("Gather", "Slice") and constant(node.inputs[0]) is not None:
            keeps_rows = node.op_type == "Gather" and attribute(node, "axis", 0) == 0
            return keeps_rows and _angle_twice(node.inputs[0], interleaved)  # pyright: ignore[reportArgumentType]
        value = next((v for v in node.inputs if constant(v) is None), None)
    return False
