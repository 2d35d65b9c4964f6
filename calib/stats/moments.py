"""Count, mean and variance, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from calib.stats.base import Stat
from calib.stats.sample import Sample

_SMALL = 1 << 15  # elements
_FEW = 1 << 13  # elements: smaller tensors wait until so many are there
_SQUARE_FITS = 1e12  # float32 holds sums of 10^14 squares of this


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
    kept: ClassVar[tuple[str, ...]] = ("count", "mean", "squares", "waiting")

    def __post_init__(self) -> None:
        self.count: Any = 0.0
        self.mean: Any = 0.0
        self.squares: Any = 0.0  # sum of squared distances to the mean
        self._channels = -1
        self._waiting: list[np.ndarray] = []  # [before, channels, after], joined together
        self._waiting_size = 0

    def _add(self, sample: Sample) -> None:
        low, high = sample.range
        values, masked = sample.grouped(self.axis)
        channels = values.shape[1]
        if self.axis is not None and self.batches:
            self._same_channels(np.empty(self._channels), np.empty(channels), sample)
        self._channels = channels
        values, exact = _as_float(values, max(-low, high))
        if masked is None and exact and values.numel() <= _FEW:
            self._wait(values.numpy())
        elif masked is None and values.numel() <= _SMALL:
            self._join_groups(*_small_moments(values.numpy()))
        else:
            self._join_groups(*_moments(values, masked))

    def _wait(self, values: np.ndarray) -> None:
        """Join small tensors in one go: the fixed cost of doing so is paid once for many."""
        if self._waiting and self._waiting[0].shape[2] != values.shape[2]:
            self._join_waiting()
        self._waiting.append(values.copy())
        self._waiting_size += values.size
        if self._waiting_size > _FEW:
            self._join_waiting()

    def _join_waiting(self) -> None:
        if self._waiting:
            values, self._waiting, self._waiting_size = self.waiting, [], 0
            self._join_groups(*_small_moments(values))

    def _join_groups(self, count: Any, mean: Any, squares: Any) -> None:
        if self.axis is None:
            count, mean, squares = count[0], mean[0], squares[0]
        self._join(count, mean, squares)

    @property
    def waiting(self) -> np.ndarray:
        """What waits, as one array: a walk that resumes joins the same groups to the last bit."""
        return np.concatenate(self._waiting) if self._waiting else np.empty((0, 1, 1), np.float32)

    @waiting.setter
    def waiting(self, values: np.ndarray) -> None:
        self._waiting, self._waiting_size = [values] if values.size else [], values.size

    def restore(self, state: dict[str, np.ndarray]) -> None:
        super().restore(state)
        self._channels = self._waiting[0].shape[1] if self._waiting else np.size(self.mean)

    def _merge(self, other: Any) -> None:
        self._join_waiting()
        other._join_waiting()
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
        self._join_waiting()
        count = np.asarray(self.count, np.float64)
        variance = np.asarray(self.squares) / np.maximum(count, 1.0)
        return MomentsResult(count, np.asarray(self.mean, np.float64), variance)


def _as_float(values: torch.Tensor, absmax: float) -> tuple[torch.Tensor, bool]:
    """(values as float32, or float64 where squares or bits need it; whether float32 did)."""
    wide = absmax > _SQUARE_FITS or values.dtype.itemsize > 4 or values.dtype == torch.int32
    return values.to(torch.float64 if wide else torch.float32), not wide


def _moments(values: torch.Tensor, masked: torch.Tensor | None) -> tuple[Any, Any, Any]:
    """(count, mean, sum of squared distances), float64 [channels], of [before, channels, after].

    Distances are taken to a centre close to the mean, and the rest of the shift is corrected in
    float64: float32 data lose nothing to cancellation and need no float64 copy, unless their
    squares leave float32.
    """
    dims = (0, 2)
    size = values.shape[0] * values.shape[2]
    count = torch.full((values.shape[1],), float(size), dtype=torch.float64)
    if masked is not None:
        count -= masked.sum(dim=dims)
        values = values.masked_fill(masked, 0.0)
    at_least = count.clamp(min=1.0)
    centre = (values.sum(dim=dims) / at_least).to(values.dtype)
    distance = values - centre[:, None]
    if masked is not None:
        distance.masked_fill_(masked, 0.0)
    shift = distance.sum(dim=dims).double()
    squares = distance.square_().sum(dim=dims).double() - shift * shift / at_least
    mean = centre.double() + shift / at_least
    return count.numpy(), mean.numpy(), squares.clamp_(min=0.0).numpy()


def _small_moments(values: np.ndarray) -> tuple[Any, Any, Any]:
    """The same in numpy, whose calls cost less."""
    count = values.shape[0] * values.shape[2]
    mean = np.add.reduce(values, axis=(0, 2), dtype=np.float64) / count
    distance = values - mean[:, None]
    squares = np.einsum("bca,bca->c", distance, distance)
    return np.full(len(mean), float(count)), mean, squares
