"""Range that leaves out a given share of the elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from calib.stats.base import Range, Stat
from calib.stats.clip_search import percentile_range, search
from calib.stats.histogram import Histogram
from calib.stats.sample import Sample


@dataclass(eq=False)
class Percentile(Stat):
    """The central `percent` of the elements; percent in (0, 100], 100 is min and max.

    symmetric: take the percentile of |x| and the range (-t, t). Precise to one histogram bin.
    result(): Range with 0 inside, count in elements.
    """

    name: ClassVar[str] = "percentile"
    kept: ClassVar[tuple[str, ...]] = ()

    percent: float = 99.99
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.percent <= 100.0:
            raise ValueError(f"percent must be in (0, 100], not {self.percent}")
        self.histogram = Histogram(axis=self.axis)

    def _add(self, sample: Sample) -> None:
        self.histogram.add(sample)

    def _merge(self, other: Any) -> None:
        self.histogram.merge(other.histogram)

    def state(self) -> dict[str, np.ndarray]:
        return self.histogram.state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.histogram.restore(state)
        self.batches = self.histogram.batches

    def result(self) -> Range:
        self._seen()
        return search(self.histogram.result(), percentile_range, self.percent, self.symmetric)
