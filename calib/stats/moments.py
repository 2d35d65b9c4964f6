"""Count, mean and variance, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from calib.stats.base import Stat
from calib.stats.sample import Sample


@dataclass(frozen=True, eq=False)
class MomentsResult:
    """count, mean, variance (of the population): float64 [] or [channels]."""

    count: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


@dataclass(eq=False)
class Moments(Stat):
    """Mean and variance, joined batch by batch with Chan's update. result(): MomentsResult.

    source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979
    """

    name: ClassVar[str] = "moments"
    kept: ClassVar[tuple[str, ...]] = ("count", "mean", "squares")

    def __post_init__(self) -> None:
        self.count: Any = 0.0
        self.mean: Any = 0.0
        self.squares: Any = 0.0  # sum of squared distances to the mean

    def _add(self, sample: Sample) -> None:
        _ = sample.range  # finiteness
        count, mean, squares = _moments(*sample.grouped(self.axis))
        if self.axis is None:
            count, mean, squares = count[0], mean[0], squares[0]
        self._same_channels(self.mean, mean, sample)
        self._join(count, mean, squares)

    def _merge(self, other: Any) -> None:
        self._join(other.count, other.mean, other.squares)

    def _join(self, count: Any, mean: Any, squares: Any) -> None:
        total = np.add(self.count, count)
        share = np.divide(count, np.maximum(total, 1.0))
        shift = np.subtract(mean, self.mean)
        self.squares = self.squares + squares + shift * shift * self.count * share
        self.mean = self.mean + shift * share
        self.count = total

    def result(self) -> MomentsResult:
        self._seen()
        count = np.asarray(self.count, np.float64)
        variance = np.asarray(self.squares) / np.maximum(count, 1.0)
        return MomentsResult(count, np.asarray(self.mean, np.float64), variance)


def _moments(values: torch.Tensor, masked: torch.Tensor | None) -> tuple[Any, Any, Any]:
    """(count, mean, sum of squared distances), float64 [channels], of [before, channels, after].

    The distances are taken in the tensor's own precision but to a float32 centre close to the
    mean, and the rest of the shift is corrected in float64: no cancellation, no float64 copy.
    """
    dims = (0, 2)
    if not values.is_floating_point() or values.dtype.itemsize < 4:
        values = values.to(torch.float64 if values.dtype.itemsize > 2 else torch.float32)
    size = values.shape[0] * values.shape[2]
    count = torch.full((values.shape[1],), float(size), dtype=torch.float64)
    if masked is not None:
        count -= masked.sum(dim=dims)
        values = values.masked_fill(masked, 0.0)
    at_least = count.clamp(min=1.0)
    centre = (values.sum(dim=dims, dtype=torch.float64) / at_least).to(values.dtype)
    distance = values - centre[:, None]
    if masked is not None:
        distance.masked_fill_(masked, 0.0)
    shift = distance.sum(dim=dims, dtype=torch.float64)
    squares = distance.square_().sum(dim=dims, dtype=torch.float64) - shift * shift / at_least
    mean = centre.double() + shift / at_least
    return count.numpy(), mean.numpy(), squares.clamp_(min=0.0).numpy()
