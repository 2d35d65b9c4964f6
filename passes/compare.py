"""Where a quantized model loses: every value that both models name, and what keeping a layer float
wins back.

Values are matched by name, which says what a value means (docs/architecture.md), so the two graphs
may be at any stages. Batches are walked one at a time; only one batch's float values are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from backends.torch import Executor
from calib import metrics
from ir import ops
from ir.edit import Edit
from ir.errors import PassError
from ir.graph import Graph, clone, nodes

from .evaluate import add_finite, held_db, to_numpy
from .sites import linears, make_float

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
        return f"value:{self.layer}"


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

    One run of the data per layer. `limit`: only the layers whose own output is worst.
    """
    held = [dict(feeds) for feeds in batches]
    reference = [Executor(float_graph).run(feeds) for feeds in held]
    before = _outputs_db(quantized, held, reference)
    known = {s.y.name for s in linears(float_graph)}
    layers = [
        s for s in linears(quantized)
        if ops.decode_of(s.weight) is not None and s.y.name in known
    ]  # fmt: skip
    if limit is not None and limit < len(layers):
        worst = {row.value: i for i, row in enumerate(compare(float_graph, quantized, held))}
        layers = sorted(layers, key=lambda s: worst.get(s.y.name or "", len(worst)))[:limit]
    found = []
    for site in layers:
        freed = with_float_layer(quantized, float_graph, site.y.name or "")
        after = _outputs_db(freed, held, reference)
        gain = held_db(after) - held_db(before)
        found.append(WinBack(site.y.name or "", site.node.op_type, after, gain))
    return sorted(found, key=lambda w: -w.gain_db)


def with_float_layer(quantized: Graph, float_graph: Graph, output: str) -> Graph:
    """A copy of the quantized graph where the layer that computes %output reads floats."""
    copy = clone(quantized)
    site = next(s for s in linears(copy) if s.y.name == output)
    original = next(s for s in linears(float_graph) if s.y.name == output)
    edit = Edit(copy, by="float layer")
    make_float(edit, site, original)
    edit.finish()
    return copy


def _outputs_db(graph: Graph, held: list[Feeds], reference: list) -> float:
    total, executor = metrics.Difference(), Executor(graph)
    for feeds, wanted in zip(held, reference, strict=True):
        for (_, a), (_, b) in zip(wanted.items(), executor.run(feeds).items(), strict=True):
            if a.is_floating_point():
                add_finite(total, to_numpy(a), to_numpy(b))
    return total.result().sqnr_db
