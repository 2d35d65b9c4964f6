"""Did a step keep its promise? Both sides are run on the same inputs and compared.

EXACT: the largest difference, relative to the output's own largest magnitude, stays below
`TOLERANCE` in float32; when it does not, both sides are run in double precision, where only a truly
different function still differs. LOSSY: the SQNR of every output in dB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backends.torch import Executor
from backends.torch.constants import FOLD_LIMIT
from backends.torch.dtypes import to_numpy as as_array
from calib import metrics
from ir.errors import BackendError, describe
from ir.graph import Graph, Node

TOLERANCE = 1e-5
Feeds = Mapping[str, np.ndarray]
Outputs = list[dict[str, np.ndarray]]
Totals = dict[str, metrics.Difference]


def outputs_of(graph: Graph, probes: Sequence[Feeds], dtype: torch.dtype | None = None) -> Outputs:
    """Outputs of the graph for every probe."""
    keep_bytes = FOLD_LIMIT if len(probes) > 1 else 0
    executor = Executor(graph, dtype=dtype, keep_bytes=keep_bytes)
    return [{k: to_numpy(v) for k, v in executor.run(feeds).items()} for feeds in probes]


def to_numpy(value) -> np.ndarray:
    return np.asarray(as_array(value))


@dataclass(frozen=True)
class Place:
    """A value, the node that computes it, and how far it moved."""

    value: str
    node: Node
    relative: float

    def __str__(self) -> str:
        return f"%{self.value} of {describe(self.node)} ({self.relative:.1e})"


@dataclass(frozen=True)
class Difference:
    """The output that differs most: largest absolute difference over largest magnitude."""

    output: str
    relative: float

    @property
    def ok(self) -> bool:
        return self.relative <= TOLERANCE


def difference(before: Outputs, after: Outputs) -> Difference:
    """Compare outputs by position, over all probes."""
    worst = Difference("", 0.0)
    for one, two in zip(before, after, strict=True):
        for (name, a), (_, b) in zip(one.items(), two.items(), strict=True):
            relative = relative_difference(a, b)
            if not relative <= worst.relative:
                worst = Difference(name, relative)
    return worst


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b| / max|a|; infinite for other types or shapes, where one side is NaN or infinite
    alone, and where whole numbers, booleans or texts differ at all."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.size == 0:
        return 0.0
    if a.dtype.kind not in "fc" and a.dtype.name != "bfloat16":
        return 0.0 if np.array_equal(a, b) else float("inf")
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    a, b = a.astype(wide), b.astype(wide)
    finite = np.isfinite(a)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(b[finite]).all()
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    size = np.abs(a[finite]).max()
    gap = np.abs(a[finite] - b[finite]).max()
    return float(gap / size) if size > 0 else float("inf" if gap > 0 else 0.0)


def same_function(before: Graph, after: Graph, probes: Sequence[Feeds]) -> Difference:
    """The double-precision arbiter, for a difference that float32 rounding may explain."""
    try:
        wide = [outputs_of(graph, probes, torch.float64) for graph in (before, after)]
    except BackendError:
        wide = [outputs_of(graph, probes) for graph in (before, after)]
    return difference(*wide)


def sqnr(before: Outputs, after: Outputs) -> dict[str, float]:
    """SQNR in dB of every float output, over all probes; see `add`."""
    totals: Totals = {}
    for one, two in zip(before, after, strict=True):
        for (name, a), (_, b) in zip(one.items(), two.items(), strict=True):
            add(totals, name, a, b)
    return {name: total.result().sqnr_db for name, total in totals.items() if total.elements}


def add(totals: Totals, name: str, before: np.ndarray, after: np.ndarray) -> None:
    """Count one output, if it is of floats and holds any (see `add_finite`)."""
    if (before.dtype.kind == "f" or before.dtype.name == "bfloat16") and before.size:
        add_finite(totals.setdefault(name, metrics.Difference()), before, after)


def add_finite(total: metrics.Difference, reference: np.ndarray, test: np.ndarray) -> None:
    """Add a pair whose reference may hold infinities (masks) or NaN: these must be equal in `test`,
    or the total becomes NaN; everything else counts as usual."""
    finite = np.isfinite(reference)
    if finite.all() or reference.shape != test.shape:
        total.add(reference, test)
    elif np.array_equal(reference[~finite], test[~finite], equal_nan=True):
        total.add(reference[finite], test[finite])
    else:
        total.add(np.ones(1), np.full(1, np.nan))


LIMIT_DB = 140.0
"""Float32 cannot tell more: equal outputs count as this much in means, and NaN as minus this."""


def mean_db(found: Mapping[str, float]) -> float:
    """Mean SQNR over outputs in dB, each held within +-LIMIT_DB; LIMIT_DB without outputs."""
    return float(np.mean([held_db(db) for db in found.values()])) if found else LIMIT_DB


def worst_db(found: Mapping[str, float]) -> float:
    """Least SQNR over outputs in dB, held within +-LIMIT_DB; LIMIT_DB without outputs."""
    return min((held_db(db) for db in found.values()), default=LIMIT_DB)


def held_db(db: float) -> float:
    """A figure fit for means and sorting: within +-LIMIT_DB, NaN at the lower end."""
    return -LIMIT_DB if np.isnan(db) else float(np.clip(db, -LIMIT_DB, LIMIT_DB))


def first_divergence(before: Graph, after: Graph, feeds: Feeds) -> Place | None:
    """The first value, in the order of `after`, that both graphs name and that differs.

    Names say what a value means (docs/architecture.md), so this is where a rewrite went wrong.
    """
    makers = {v.name: node for node in after.graph for v in node.outputs}
    names = _float_names(before) & _float_names(after)
    kept: dict[str, np.ndarray] = {}

    def keep(name: str):
        return lambda tensor: kept.__setitem__(name, to_numpy(tensor))

    Executor(before).run(feeds, watch={name: keep(name) for name in names})
    found: list[Place] = []

    def compare(name: str):
        def look(tensor) -> None:
            relative = relative_difference(kept[name], to_numpy(tensor))
            if not relative <= TOLERANCE and not found:
                found.append(Place(name, makers[name], relative))

        return look

    Executor(after).run(feeds, watch={name: compare(name) for name in names if name in kept})
    return found[0] if found else None


def _float_names(graph: Graph) -> set[str]:
    computed: Iterable = (v for node in graph.graph for v in node.outputs)
    return {
        v.name for v in computed if v.name and v.dtype is not None and v.dtype.is_floating_point()
    }
