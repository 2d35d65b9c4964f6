"""Where a quantized model loses: every value that both models name, and what keeping a layer float
wins back.

Values are matched by name, which says what a value means (docs/architecture.md), so the two graphs
may be at any stages. Batches are walked one at a time; only one batch's float values are held.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from backends.torch import Executor
from calib import metrics
from ir.edit import Edit
from ir.errors import PassError
from ir.graph import Graph, Node, clone, constant, nodes

from .evaluate import add_finite, held_db, to_numpy
from .sites import linears

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class ValueGap:
    """One value of both graphs: SQNR in dB against float, and the layer that computes it."""

    value: str
    op: str
    sqnr_db: float
    cosine: float
    output: bool


@dataclass(frozen=True)
class WinBack:
    """What keeping one layer float would give: SQNR of the outputs, and the selector that says
    so."""

    layer: str
    op: str
    sqnr_db: float
    gain_db: float

    @property
    def selector(self) -> str:
        """For `keep=[...]` of place, or `--keep`."""
        return f"value:{glob.escape(self.layer)}"


def compare(float_graph: Graph, quantized: Graph, batches: Iterable[Feeds]) -> list[ValueGap]:
    """SQNR and cosine of every float value that both graphs compute, worst first.

    raises: PassError when the graphs share no value name.
    """
    return sorted(gaps(float_graph, quantized, batches), key=lambda row: held_db(row.sqnr_db))


def gaps(float_graph: Graph, quantized: Graph, batches: Iterable[Feeds]) -> list[ValueGap]:
    """The rows of `compare`, in the order in which the quantized graph computes them."""
    reference, tested = Executor(float_graph), Executor(quantized)
    makers = {v.name: n for n in nodes(quantized) for v in n.outputs if v.name}
    known = set(_computed(float_graph))
    common = [name for name in makers if name in known]
    if not common:
        raise PassError(
            "the two graphs share no value name",
            hint="compare a model with one that ptqc made from it; other tools may rename values",
        )
    sums = {name: metrics.Difference() for name in common}
    outputs = {v.name for v in quantized.graph.outputs}
    for feeds in batches:
        _compare_batch(reference, tested, feeds, sums)
    return [
        ValueGap(name, makers[name].op_type, gap.sqnr_db, gap.cosine, name in outputs)
        for name, total in sums.items()
        if total.elements
        for gap in [total.result()]
    ]


def _compare_batch(reference: Executor, tested: Executor, feeds: Feeds, sums) -> None:
    held: dict[str, list[np.ndarray]] = {}  # a value in a loop's body is computed many times

    def hold(name: str):
        return lambda tensor: held.setdefault(name, []).append(to_numpy(tensor))

    def add(name: str):
        def look(tensor) -> None:
            now, before = to_numpy(tensor), held[name].pop(0) if held.get(name) else None
            if before is not None and before.shape == now.shape and before.dtype.kind == "f":
                add_finite(sums[name], before, now)

        return look

    reference.run(feeds, watch={name: hold(name) for name in sums})
    tested.run(feeds, watch={name: add(name) for name in sums})


def _computed(graph: Graph) -> Iterator[str]:
    for node in nodes(graph):
        for value in node.outputs:
            if value.name and (value.dtype is None or value.dtype.is_floating_point()):
                yield value.name


def win_back(
    float_graph: Graph, quantized: Graph, batches: Iterable[Feeds], limit: int | None = None
) -> list[WinBack]:
    """Each quantized layer made float again, alone, and the outputs measured: most won back first.

    One run of the data per layer. `limit`: only the layers whose own output is worst. The quantized
    graph may be coded or lowered: a layer is found by the names of what it reads and writes.
    """
    held = [dict(feeds) for feeds in batches]
    reference = [Executor(float_graph).run(feeds) for feeds in held]
    before = _outputs_db(quantized, held, reference)
    layers = list(_quantized_layers(float_graph, quantized))
    if limit is not None and limit < len(layers):
        worst = {row.value: i for i, row in enumerate(compare(float_graph, quantized, held))}
        layers = sorted(layers, key=lambda layer: worst.get(layer.end, len(worst)))[:limit]
    found = []
    for layer in layers:
        freed = with_float_layer(quantized, layer)
        after = _outputs_db(freed, held, reference)
        gain = held_db(after) - held_db(before)
        found.append(WinBack(layer.name, layer.nodes[0].op_type, after, gain))
    return sorted(found, key=lambda w: -w.gain_db)


@dataclass(frozen=True)
class Layer:
    """A linear layer of the float graph, on to the first value that the quantized graph has too.

    name: of the layer's own result; end: of that value; nodes: from one to the other (a bias, a
    normalization or an activation may be part of the quantized layer).
    """

    name: str
    end: str
    nodes: tuple[Node, ...]


def _quantized_layers(float_graph: Graph, quantized: Graph) -> Iterator[Layer]:
    makers = {v.name: n for n in nodes(quantized) for v in n.outputs if v.name}
    known = {*makers, *(v.name for v in quantized.graph.inputs)}
    for site in linears(float_graph):
        chain, value = [site.node], site.y
        while value.name not in makers:
            uses = value.uses()
            follower = next(iter(uses)).node if len(uses) == 1 else None
            others = [v for v in follower.inputs if v is not value] if follower is not None else []
            if follower is None or any(v is not None and constant(v) is None for v in others):
                break
            chain.append(follower)
            value = follower.outputs[0]
        else:
            maker = makers[value.name]
            same = (maker.domain, maker.op_type) == (chain[-1].domain, chain[-1].op_type)
            kept = same and (len(chain) > 1 or constant(maker.inputs[1]) is not None)
            if site.x.name in known and not kept:
                yield Layer(site.y.name or "", value.name or "", tuple(chain))


def with_float_layer(quantized: Graph, layer: Layer) -> Graph:
    """A copy of the quantized graph where a layer is computed as in the float model."""
    copy = clone(quantized)
    edit = Edit(copy, by="float layer")
    values = {v.name: v for n in nodes(copy) for v in n.outputs} | {
        v.name: v for v in copy.graph.inputs
    }
    before = values[layer.end]
    made, after = values, before.producer()
    assert after is not None
    for node in layer.nodes:
        inputs = [
            None
            if value is None
            else edit.constant(tensor.numpy(), f"{value.name}.float")
            if (tensor := constant(value)) is not None
            else made[value.name]
            for value in node.inputs
        ]
        after = edit.node(
            node.op_type, inputs, like=f"{layer.name}.float", domain=node.domain, after=after
        )
        for attribute in node.attributes.values():
            after.attributes.add(attribute)
        made[node.outputs[0].name] = after.outputs[0]
    edit.replace(before, made[layer.nodes[-1].outputs[0].name])
    edit.finish()
    return copy


def _outputs_db(graph: Graph, held: list[Feeds], reference: list) -> float:
    total, executor = metrics.Difference(), Executor(graph)
    for feeds, wanted in zip(held, reference, strict=True):
        for (_, a), (_, b) in zip(wanted.items(), executor.run(feeds).items(), strict=True):
            if a.is_floating_point():
                add_finite(total, to_numpy(a), to_numpy(b))
    return total.result().sqnr_db
