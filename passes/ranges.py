"""The range of a value, from whichever statistic was collected."""

from __future__ import annotations

from enum import Enum

import numpy as np

from calib.stats import (
    entropy_range,
    minmax_range,
    mse_range,
    percentile_range,
    search,
)
from ir.errors import PassError
from ir.graph import Node, array
from ir.qtype import QType

from .core import Ctx, Stat

RANGES = (Stat.HISTOGRAM, Stat.MINMAX, Stat.PERCENTILE, Stat.MOVING_AVERAGE, Stat.ABSMAX)
"""Statistics that know a value's range, the most detailed first."""


class Method(Enum):
    """How a range is chosen from a histogram (card observers)."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


def reached(ctx: Ctx) -> set[str] | None:
    """Names of all values that were observed; None when no range was collected at all."""
    found = [ctx.stats[stat] for stat in RANGES if stat in ctx.stats]
    return {name for values in found for name in values} if found else None


def collected_range(ctx: Ctx, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of everything that was observed; PassError when nothing was."""
    for stat in RANGES:
        accumulator = ctx.stats.get(stat, {}).get(name)
        if accumulator is None:
            continue
        result = accumulator.result()
        if stat is Stat.HISTOGRAM:
            result = search(result, minmax_range)
        return np.asarray(result.low), np.asarray(result.high)
    raise PassError(
        f"no range was collected for %{name}",
        hint="put collect{histogram} before this step; the data must reach the value",
    )


def searched_range(
    ctx: Ctx, name: str, method: Method, qtype: QType, percent: float
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) by `method`; all but MINMAX need a collected histogram."""
    if method is Method.MINMAX:
        return collected_range(ctx, name)
    accumulator = ctx.stats.get(Stat.HISTOGRAM, {}).get(name)
    if accumulator is None:
        raise PassError(
            f"no histogram was collected for %{name}", hint="put collect{histogram} first"
        )
    symmetric = qtype.zero is None and qtype.signed
    levels = 1 << qtype.bits
    rule, argument = {
        Method.PERCENTILE: (percentile_range, percent),
        Method.ENTROPY: (entropy_range, levels),
        Method.MSE: (mse_range, levels),
    }[method]
    found = search(accumulator.result(), rule, argument, symmetric)
    return found.low, found.high


def coded_range(encode: Node, qtype: QType) -> tuple[float, float]:
    """(low, high) that the codes of an Encode with one constant scale can say."""
    scale, zero = (
        array(encode.inputs[1]),
        array(encode.inputs[2]) if len(encode.inputs) > 2 else None,
    )
    assert scale is not None
    origin = 0.0 if zero is None else float(zero)
    lowest, highest = qtype.limits
    return (lowest - origin) * float(scale), (highest - origin) * float(scale)
