"""Largest magnitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from calib.stats.base import Range, Stat, as_range
from calib.stats.sample import Sample


@dataclass(eq=False)
class AbsMax(Stat):
    """max|x|. result(): the symmetric Range (-absmax, absmax), count in elements."""

    name: ClassVar[str] = "absmax"
    kept: ClassVar[tuple[str, ...]] = ("largest", "count")

    def __post_init__(self) -> None:
        self.largest, self.count = 0.0, 0

    def _add(self, sample: Sample) -> None:
        low, high = sample.extremes(self.axis)
        self._same_channels(self.largest, low, sample)
        # a channel that is wholly masked has low = inf, high = -inf: its magnitude is 0
        largest = np.maximum(np.negative(low), high)
        self.largest = np.maximum(self.largest, largest)
        self.count += sample.size

    def _merge(self, other: Any) -> None:
        self.largest = np.maximum(self.largest, other.largest)
        self.count += other.count

    def result(self) -> Range:
        self._seen()
        return as_range(np.negative(self.largest), self.largest, self.count)
