"""What ONNX Runtime really made of a lowered model, and whether it still computes the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from backends.base import BODY
from ir.errors import BackendError
from ir.graph import Graph

from .lower import CARRIERS, Lowered
from .session import Feeds, Level, Session
from .sites import LOADED, LOOKUP, Site

FOLLOWS = {
    "MatMulIntegerToFloat": ("MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
    "QLinearConv": ("QLinearConv",),
    "MatMulNBits": ("MatMulNBits",),
    LOOKUP: ("Gather",),
}
"""The kernels that fulfil an intention."""


@dataclass(frozen=True)
class Agreement:
    """Executed against unfused, per output: SQNR in dB, and the largest relative gap."""

    sqnr_db: dict[str, float]
    largest: dict[str, float]

    @property
    def worst_db(self) -> float:
        return min(self.sqnr_db.values(), default=np.inf)


def kernels(made: Lowered) -> list[Site]:
    """The sites of a lowered graph as ONNX Runtime's optimised model has them.

    A site whose kernel is not there any more comes back without one, with the reason. Raises
    BackendError when ONNX Runtime refuses the model.
    """
    optimised = optimised_model(made.graph)
    readers: dict[str, set[str]] = {}
    for node in _all_nodes(optimised.graph):
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    live: set[str] = set()
    if any(site.kernel == BODY for site in made.sites):
        _add_live(optimised.graph, live)
    counts = Counter(node.op_type for node in _all_nodes(optimised.graph))
    return [
        _body(site, live) if site.kernel == BODY else _found(site, readers, counts)
        for site in made.sites
    ]


def _add_live(graph: onnx.GraphProto, live: set[str]) -> None:
    """Add the values that the outputs of a graph depend on, those of its bodies among them."""
    live.update(value.name for value in graph.output)
    for node in reversed(graph.node):
        if live.isdisjoint(node.output):
            continue
        live.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _add_live(attribute.g, live)


def _body(site: Site, live: set[str]) -> Site:
    """A layer run through the functions' bodies, if its values are still rounded to codes."""
    if site.weight in live:
        return site
    reason = f"nothing in ONNX Runtime's model reads codes %{site.weight}: it may not be rounded"
    return replace(site, kernel="", reason=reason)


def optimised_model(graph: Graph) -> onnx.ModelProto:
    """The model as ONNX Runtime runs it, all optimisations done; large weights are left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        weights = {
            "session.optimized_model_external_initializers_file_name": "weights.bin",
            "session.optimized_model_external_initializers_min_size_in_bytes": "256",
        }
        try:
            Session(graph, threads=1, dump=path, config=weights)
        except BackendError as error:
            Session(graph, threads=1)  # raises again when it is the model that is refused
            raise BackendError(
                "ONNX Runtime cannot write its optimised model", at=folder, hint="free some space"
            ) from error
        try:
            return onnx.load(path, load_external_data=False)
        except Exception as error:
            raise BackendError(
                f"ONNX Runtime left no optimised model to look at: {error}", hint="free some space"
            ) from error


def _found(site: Site, readers: dict[str, set[str]], counts: Counter[str]) -> Site:
    if site.kernel in ("", LOADED):
        return site
    if site.op in CARRIERS:  # fusions rename these: go by their number
        counts[site.kernel] -= 1
        if counts[site.kernel] >= 0:
            return site
        return replace(site, kernel="", reason=f"ONNX Runtime made no {site.kernel} of it")
    ops = readers.get(site.weight, set())
    if ops & set(FOLLOWS[site.kernel]):
        return site
    what = f"its weight is read by {', '.join(sorted(ops))}" if ops else "its weight is gone"
    return replace(site, kernel="", reason=f"ONNX Runtime did not keep the {site.kernel}: {what}")


def _all_nodes(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


def agreement(coded: Graph, lowered: Graph, batches: Iterable[Feeds]) -> Agreement:
    """Compare the executed model with the coded graph run by its functions' float bodies, unfused.

    Codes near a rounding boundary may fall on either side, and in a deep model one such code moves
    others, so the two may differ by as much as a few dB below the quantization error itself;
    saturating or mis-joined kernels show as far more.
    """
    sessions = Session(coded, level=Level.UNFUSED, threads=1), Session(lowered, threads=1)
    signal: Counter[str] = Counter()
    noise: Counter[str] = Counter()
    largest: dict[str, float] = {}
    for feeds in batches:
        plain, executed = (session.run(feeds) for session in sessions)
        for (name, a), b in zip(plain.items(), executed.values(), strict=True):
            if a.dtype.kind != "f":
                continue
            gap = np.abs(a.astype(np.float64) - b)
            signal[name] += float(np.square(a, dtype=np.float64).sum())  # type: ignore[assignment]
            noise[name] += float(np.square(gap).sum())  # type: ignore[assignment]
            size = float(np.abs(a).max(initial=0)) or 1.0
            largest[name] = max(largest.get(name, 0.0), float(gap.max(initial=0)) / size)
    return Agreement({name: _decibel(signal[name], noise[name]) for name in signal}, largest)


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")
