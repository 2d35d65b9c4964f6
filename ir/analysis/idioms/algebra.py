"""Polynomials of a few chosen values: one normal form for every way to write the same formula."""

from __future__ import annotations

from collections.abc import Sequence

from ir.analysis.idioms.base import close, is_op, producer
from ir.graph import Node, Value, readers, scalar

Polynomial = dict[tuple[int, ...], float]
"""Exponents of the chosen values -> coefficient: 3*x*e is {(1, 1): 3.0} over (x, e)."""
RING = ("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Cast", "Identity")
_DEPTH, _TERMS = 8, 16


def polynomial(value: Value, atoms: Sequence[Value], used: dict[int, Node]) -> Polynomial | None:
    """The value as a polynomial of `atoms`, or None when it is not one.

    Follows Add, Sub, Mul, Neg, Div by a number, Pow by a small whole number, Cast and Identity.
    The nodes passed are put into `used` by id.
    """
    return _expand(value, atoms, used, _DEPTH)


def _expand(value, atoms, used, depth) -> Polynomial | None:
    for index, atom in enumerate(atoms):
        if value is atom:
            return {tuple(int(i == index) for i in range(len(atoms))): 1.0}
    constant = scalar(value)
    if constant is not None:
        return {(0,) * len(atoms): constant}
    node = producer(value, *RING)
    if node is None or depth == 0:
        return None
    used[id(node)] = node
    terms = []
    for operand in node.inputs:
        term = _expand(operand, atoms, used, depth - 1)
        if term is None or len(term) > _TERMS:
            return None
        terms.append(term)
    return _combine(node.op_type, terms)


def _combine(op_type: str, terms: list[Polynomial]) -> Polynomial | None:
    first, second = terms[0], terms[-1]
    if op_type in ("Cast", "Identity"):
        return first
    if op_type == "Neg":
        return _scaled(first, -1.0)
    if op_type in ("Add", "Sub"):
        return _sum(first, _scaled(second, 1.0 if op_type == "Add" else -1.0))
    if op_type == "Mul":
        return _product(first, second)
    whole = _constant(second)
    if whole is None or whole == 0:
        return None
    if op_type == "Div":
        return _scaled(first, 1.0 / whole)
    if whole not in (1, 2, 3):
        return None
    result = first
    for _ in range(int(whole) - 1):
        result = _product(result, first)
    return result


def _constant(p: Polynomial) -> float | None:
    exponents, coefficient = next(iter(p.items()), ((), 0.0))
    return coefficient if len(p) == 1 and not any(exponents) else None


def _scaled(p: Polynomial, factor: float) -> Polynomial:
    return {e: c * factor for e, c in p.items()}


def _sum(p: Polynomial, q: Polynomial) -> Polynomial:
    return {e: p.get(e, 0.0) + q.get(e, 0.0) for e in {**p, **q}}


def _product(p: Polynomial, q: Polynomial) -> Polynomial:
    result: Polynomial = {}
    for e, c in p.items():
        for f, d in q.items():
            key = tuple(a + b for a, b in zip(e, f, strict=True))
            result[key] = result.get(key, 0.0) + c * d
    return result


def equals(p: Polynomial | None, q: Polynomial) -> bool:
    """Whether two polynomials agree, coefficients up to the precision of stored constants."""
    if p is None:
        return False
    p = {e: c for e, c in p.items() if abs(c) > 1e-12}
    return p.keys() == q.keys() and all(close(p[e], q[e]) for e in q)


def arguments(value: Value, depth: int = 4) -> list[Value]:
    """Values a formula may be a polynomial of: itself, then its sources, nearest first."""
    found, layer = [value], [value]
    for _ in range(depth):
        layer = [
            v
            for node in (producer(u, *RING) for u in layer)
            if node is not None
            for v in node.inputs
            if v is not None and scalar(v) is None and not any(v is f for f in found)
        ]
        found += [v for i, v in enumerate(layer) if not any(v is u for u in layer[:i])]
        if len(found) > 12:
            break
    return found


def results(value: Value, depth: int = 5) -> list[Value]:
    """Values a formula's end may be: along its only readers, furthest first."""
    found = []
    for _ in range(depth):
        nodes = {id(n): n for n, _ in readers(value)}
        node = next(iter(nodes.values()), None)
        if len(nodes) != 1 or value.is_graph_output() or not is_op(node, *RING):
            break
        value = node.outputs[0]  # pyright: ignore[reportOptionalMemberAccess]
        found.append(value)
    return found[::-1]
