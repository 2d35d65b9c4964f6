"""How far a tensor is from its reference: pure functions, and accumulators over batches.

All sums are float64. Arrays are numpy or torch, of equal shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ir.errors import DataError


@dataclass
class Difference:
    """Running comparison of (reference, test) pairs; merge() joins two as if one had seen all.

    signal = sum ref^2, noise = sum (ref - test)^2, power = sum test^2, product = sum ref * test.
    """

    signal: float = 0.0
    noise: float = 0.0
    power: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    elements: int = 0

    def add(self, reference: Any, test: Any, /) -> None:
        """raises: DataError when shapes differ, or `reference` is not finite."""
        reference, test = _pair(reference, test)
        difference = reference - test
        self.signal += float(reference @ reference)
        self.noise += float(difference @ difference)
        self.power += float(test @ test)
        self.product += float(reference @ test)
        if len(difference):
            self.largest = float(np.maximum(self.largest, np.max(np.abs(difference))))
        self.elements += len(reference)

    def merge(self, other: Self, /) -> Self:
        for key in ("signal", "noise", "power", "product", "elements"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        self.largest = float(np.maximum(self.largest, other.largest))
        return self

    def result(self) -> Comparison:
        if not self.elements:
            raise DataError("nothing was compared", hint="give at least one batch")
        return Comparison(_db(self.signal, self.noise), self._cosine(), self.largest, self.elements)

    def _cosine(self) -> float:
        if self.noise == 0.0:
            return 1.0
        size = math.sqrt(self.signal) * math.sqrt(self.power)
        return min(1.0, max(-1.0, self.product / size)) if size else 0.0


@dataclass(frozen=True)
class Comparison:
    """sqnr_db: 10 log10(sum ref^2 / sum (ref - test)^2), inf when identical, NaN when `test` holds
    one; cosine in [-1, 1], 0 when one side is all zero; max_abs: largest |ref - test|."""

    sqnr_db: float
    cosine: float
    max_abs: float
    elements: int


@dataclass
class Agreement:
    """Share of positions along `axis` where the largest entry is at the same index."""

    axis: int = -1
    equal: int = 0
    rows: int = 0

    def add(self, reference: Any, test: Any, /) -> None:
        """raises: DataError when shapes differ, or `reference` is not finite."""
        reference, test = _arrays(reference, test)
        if not reference.size:
            return
        same = np.argmax(reference, axis=self.axis) == np.argmax(test, axis=self.axis)
        broken = np.isnan(test).any(axis=self.axis)
        self.equal += int(np.sum(same & ~broken))
        self.rows += int(np.size(same))

    def merge(self, other: Self, /) -> Self:
        if self.axis != other.axis:
            raise DataError(f"agreement over axis {self.axis} cannot take in axis {other.axis}")
        self.equal += other.equal
        self.rows += other.rows
        return self

    def result(self) -> float:
        if not self.rows:
            raise DataError("nothing was compared", hint="give at least one batch")
        return self.equal / self.rows


def compare(reference: Any, test: Any) -> Comparison:
    """All figures of one pair."""
    found = Difference()
    found.add(reference, test)
    return found.result()


def sqnr_db(reference: Any, test: Any) -> float:
    """Signal to quantization noise in dB: inf when identical, 0 for an all-zero test."""
    return compare(reference, test).sqnr_db


def cosine(reference: Any, test: Any) -> float:
    """Cosine of the angle between the two as flat vectors; 0 when one of them is all zero."""
    return compare(reference, test).cosine


def max_abs(reference: Any, test: Any) -> float:
    """Largest absolute difference, in the unit of the values."""
    return compare(reference, test).max_abs


def agreement(reference: Any, test: Any, axis: int = -1) -> float:
    """Share in [0, 1] of positions with the same argmax along `axis`."""
    found = Agreement(axis)
    found.add(reference, test)
    return found.result()


def _db(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    if math.isnan(noise):
        return math.nan
    return 10.0 * math.log10(signal / noise) if signal and not math.isinf(noise) else -math.inf


def _pair(reference: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    reference, test = _arrays(reference, test)
    return reference.reshape(-1), test.reshape(-1)


def _arrays(reference: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for array in (reference, test):
        detached = array.detach().cpu() if hasattr(array, "detach") else array
        wide = detached.double() if hasattr(detached, "double") else detached
        arrays.append(np.asarray(wide).astype(np.float64, copy=False))
    if arrays[0].shape != arrays[1].shape:
        raise DataError(
            f"shapes differ: reference {list(arrays[0].shape)}, test {list(arrays[1].shape)}",
            hint="compare the same value of both graphs on the same batch",
        )
    if not np.isfinite(arrays[0]).all():
        raise DataError("the reference holds NaN or Inf", hint="check the float model and the data")
    return arrays[0], arrays[1]
