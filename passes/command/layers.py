"""Facts per layer for the HTML report: ranges, errors, bytes."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

import calib
from calib.stats import minmax_range, search
from ir import ops
from ir.graph import array, constant, nodes
from ir.qtype import QType
from passes.compare import compare
from passes.core import Stat
from passes.ranges import coded_range
from passes.sites import linears

if TYPE_CHECKING:
    from passes.run import Result

BATCHES = 2
"""Batches that per-layer errors are measured on."""


def errors(result: Result, data) -> list[dict[str, Any]]:
    """SQNR of every value of both graphs, worst first, simulated by the torch executor."""
    batches = data if data is not None else calib.data.synthetic(result.float_graph, 1, 0)
    rows = compare(result.float_graph, result.graph, list(islice(iter(batches), BATCHES)))
    return [{"value": r.value, "op": r.op, "sqnr_db": r.sqnr_db, "cosine": r.cosine} for r in rows]


def weights(result: Result) -> list[dict[str, Any]]:
    """Range and bytes of every linear layer's weight, in graph order."""
    stored = _stored(result.graph)
    rows = []
    for site in linears(result.float_graph):
        numbers, tensor = array(site.weight), constant(site.weight)
        if numbers is None or tensor is None:
            continue
        name = site.y.name or ""
        qtype, size = stored.get(name, ("float", tensor.nbytes))
        rows.append(
            {
                "layer": name, "op": site.node.op_type, "shape": list(numbers.shape),
                "low": float(numbers.min()), "high": float(numbers.max()),
                "qtype": qtype, "float_bytes": tensor.nbytes, "bytes": size,
            }
        )  # fmt: skip
    return rows


def _stored(graph) -> dict[str, tuple[str, int]]:
    """{layer's result: (QType, bytes of codes, scales and zero points)} of the coded graph."""
    found = {}
    for site in linears(graph):
        decode = ops.decode_of(site.weight)
        if decode is not None:
            parts = [constant(value) for value in decode.inputs]
            size = sum(tensor.nbytes for tensor in parts if tensor is not None)
            found[site.y.name or ""] = decode.overload, size
    return found


def activations(result: Result) -> list[dict[str, Any]]:
    """Range that was seen and range that the codes can say, of every value with a fixed scale."""
    seen = result.stats.get(Stat.HISTOGRAM, {})
    rows = []
    for node in nodes(result.graph):
        if not ops.is_op(node, "Encode") or array(node.inputs[1]) is None:
            continue
        name, qtype = node.inputs[0].name or "", QType.parse(node.overload)  # type: ignore[union-attr]
        if not qtype.per_tensor or name not in seen:
            continue
        low, high = coded_range(node, qtype)
        whole = search(seen[name].result(), minmax_range)
        rows.append(
            {
                "value": name, "qtype": str(qtype), "low": low, "high": high,
                "seen_low": float(np.min(whole.low)), "seen_high": float(np.max(whole.high)),
            }
        )  # fmt: skip
    return rows


def scaled(low: float, high: float, widest: float) -> tuple[float, float]:
    """(start, width) in percent of a bar from `low` to `high`; 0 in the middle, the ends squeezed.

    x -> 50 (1 + asinh(10 x / widest) / asinh(10)): linear near 0, logarithmic far out.
    """

    def place(value: float) -> float:
        return 50 * (1 + math.asinh(10 * value / widest) / math.asinh(10)) if widest else 50

    start = min(100.0, max(0.0, place(low)))
    end = min(100.0, max(0.0, place(high)))
    return start, max(end - start, 0.5)
