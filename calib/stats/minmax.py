"""Lowest and highest element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from calib.stats.base import Range, Stat, as_range
from calib.stats.sample import Sample


@dataclass(eq=False)
class MinMax(Stat):
    """Range of everything seen. result(): Range, count in elements."""

    name: ClassVar[str] = "minmax"
    kept: ClassVar[tuple[str, ...]] = ("low", "high", "count")

    def __post_init__(self) -> None:
        self.low, self.high, self.count = np.inf, -np.inf, 0

    def _add(self, sample: Sample) -> None:
        low, high = sample.extremes(self.axis)
        self._same_channels(self.low, low, sample)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.count += sample.size

    def _merge(self, other: Any) -> None:
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)
        self.count += other.count

    def result(self) -> Range:
        self._seen()
        return as_range(self.low, self.high, self.count)
