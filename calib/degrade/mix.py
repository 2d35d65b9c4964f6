"""A calibration set in which a stated share of the samples is degraded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ir.errors import DataError

Degrade = Callable[[Any, np.random.Generator], Any]


def mix(clean: Sequence[Any], degraders: Sequence[Degrade], ratio: float, seed: int) -> list[Any]:
    """The samples in their order, round(ratio * n) of them degraded, each by one degrader.

    Which samples, which degrader and its draws depend on `seed` alone, and a sample's own draws on
    its place. The first of them at a lower ratio are degraded alike at a higher one. At ratio 0
    the samples are the very objects that were given.

    source: QRID, arXiv:2508.19600, whose set has ratio 0.5.
    raises: DataError for a ratio outside 0..1, or without degraders where some are needed.
    """
    if not 0 <= ratio <= 1:
        raise DataError(f"a share lies in 0..1, found {ratio}")
    count = int(np.floor(ratio * len(clean) + 0.5))
    if count and not degraders:
        raise DataError("nothing to degrade with", hint="name at least one degrader")
    chosen = np.random.default_rng(seed).permutation(len(clean))[:count]
    mixed = list(clean)
    for place in map(int, chosen):
        rng = np.random.default_rng((seed, place))
        degrade = degraders[int(rng.integers(len(degraders)))]
        mixed[place] = degrade(clean[place], rng)
    return mixed


def every(clean: Sequence[Any], degrade: Degrade, seed: int) -> list[Any]:
    """All samples degraded by one degrader: a test condition."""
    return mix(clean, [degrade], 1.0, seed)
