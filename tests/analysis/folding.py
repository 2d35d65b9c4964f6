"""Random maps folded into every stream of a graph that admits them, and what they must leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import ir
from backends import reference
from ir.analysis.streams import Stream, streams
from ir.edit import Edit
from ir.fold import fold_permute, fold_scale, fold_shift
from ir.graph import Graph, nodes

Values = dict[str, np.ndarray]
Fold = Callable[[Stream, np.random.Generator, Edit], np.ndarray]


def scale(stream: Stream, rng: np.random.Generator, edit: Edit) -> np.ndarray:
    numbers = np.exp(rng.normal(size=stream.channels))
    fold_scale(stream, numbers, edit)
    return numbers


def shift(stream: Stream, rng: np.random.Generator, edit: Edit) -> np.ndarray:
    numbers = rng.normal(size=stream.channels)
    fold_shift(stream, numbers, edit)
    return numbers


def permute(stream: Stream, rng: np.random.Generator, edit: Edit) -> np.ndarray:
    span = stream.span or stream.channels
    order = np.arange(stream.channels).reshape(-1, span)
    order = np.concatenate([np.roll(rng.permutation(run), 1) for run in order])
    if (order == np.arange(len(order))).all():
        order = np.roll(order.reshape(-1, span), 1, axis=1).ravel()
    fold_permute(stream, order, edit)
    return order


FOLDS: dict[str, Fold] = {"scale": scale, "shift": shift, "permute": permute}


def everything(graph: Graph, feeds: Values) -> Values:
    """Every float that the main graph computes, by name, in double precision."""
    watched = ir.clone(graph)
    outputs = {v.name for v in watched.graph.outputs}
    inner = [v for n in watched.graph for v in n.outputs if v.name and v.name not in outputs]
    watched.graph.outputs.extend(inner)
    found = reference.run(watched, feeds, dtype=np.float64)
    return {k: v for k, v in found.items() if v.dtype.kind == "f"}


def mapped(value: np.ndarray, stream: Stream, kind: str, numbers: np.ndarray | None) -> np.ndarray:
    """The stream's channels [places, ...] in its value, under a map as its definition says."""
    index = np.arange(stream.channels) if stream.index is None else stream.index
    rows = np.moveaxis(value, stream.axis, 0)[index >= 0]
    if numbers is None:
        return rows
    if kind == "permute":
        return rows[numbers]
    each = numbers[index[index >= 0]].reshape(-1, *[1] * (rows.ndim - 1))
    return rows / each if kind == "scale" else rows - each


def check_folds(text_or_graph, feeds: Values, tolerance: float, goal: str) -> Iterator[str]:
    """Fold a random map of every kind into every stream, each into a graph of its own.

    The outputs stay; the stream's value is the one that the definition of the map gives; what keeps
    its name keeps its numbers. Yields the kinds that were tried.
    """
    plain = ir.parse(text_or_graph) if isinstance(text_or_graph, str) else text_or_graph
    before = everything(plain, feeds)
    for number, stream in enumerate(streams(plain, goal)):  # type: ignore[arg-type]
        for kind in sorted(stream.maps):
            graph = ir.clone(plain)
            own = streams(graph, goal)[number]  # type: ignore[arg-type]
            name = str(own.value.name)
            rng = np.random.default_rng(number)
            numbers = FOLDS[kind](own, rng, Edit(graph, "test"))
            after = everything(graph, feeds)
            assert own.value.name != name
            if kind != "permute" or own.index is None:
                wanted = mapped(before[name], own, kind, numbers)
                _close(mapped(after[str(own.value.name)], own, kind, None), wanted, tolerance, name)
            assert not np.allclose(after[str(own.value.name)], before[name], rtol=1e-3, atol=1e-6)
            for kept in set(before) & set(after):
                _close(after[kept], before[kept], tolerance, f"{kind} of %{name}: %{kept}")
            assert {v.name for v in plain.graph.outputs} <= set(after)
            assert len({n.name for n in nodes(graph)}) == len(list(nodes(graph)))
            yield kind


def _close(found: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    assert found.shape == wanted.shape, what
    assert np.isfinite(found).all(), what
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30)
    assert error <= tolerance, f"{what}: {error:.1e}"
