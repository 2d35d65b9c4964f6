"""Exponential moving average of each batch's range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from calib.stats.base import Range, Stat, as_range
from calib.stats.sample import Sample


@dataclass(eq=False)
class MovingAverage(Stat):
    """m <- m + rate * (batch - m), started by the first batch; depends on the order of batches.

    rate in (0, 1], unitless. result(): Range, count in batches. A channel's average moves only
    with batches that hold an unmasked element of it.
    """

    name: ClassVar[str] = "moving_average"
    kept: ClassVar[tuple[str, ...]] = ("first", "mean", "steps")

    rate: float = 0.01

    def __post_init__(self) -> None:
        self.first: Any = None  # [2, channels or nothing]: (low, high) of the first batch
        self.mean: Any = None
        self.steps: Any = 0  # batches seen, per channel

    def _add(self, sample: Sample) -> None:
        now = np.stack(sample.extremes(self.axis))
        if self.mean is None:
            self.first = self.mean = now
            self.steps = (now[0] <= now[1]).astype(np.int64)
            return
        self._same_channels(self.mean[0], now[0], sample)
        self._join(now, now, (now[0] <= now[1]).astype(np.int64))

    def _merge(self, other: Any) -> None:
        self._join(other.first, other.mean, other.steps)

    def _join(self, first: Any, mean: Any, steps: Any) -> None:
        """Continue with a run of `steps` batches known by its own first batch and average.

        That run gave its first batch the weight (1-rate)^(steps-1); here it deserves only
        rate times that, and what was here before keeps (1-rate)^steps.
        """
        old = (1.0 - self.rate) ** np.asarray(steps, np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf in channels that one side never saw
            joined = mean + old * (self.mean - first)
        new_here, none_there = np.asarray(self.steps) == 0, np.asarray(steps) == 0
        self.mean = np.where(none_there, self.mean, np.where(new_here, mean, joined))
        self.first = np.where(new_here, first, self.first)
        self.steps = self.steps + steps

    def result(self) -> Range:
        self._seen()
        return as_range(self.mean[0], self.mean[1], self.batches)
