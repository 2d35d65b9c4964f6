"""What every statistic is: add() arrays, merge() another, result() frozen; state() to a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np

from calib.stats.sample import Sample
from ir.errors import DataError

REGISTRY: dict[str, type[Stat]] = {}


@dataclass(eq=False)
class Stat(ABC):
    """An accumulator over arrays of one value. Its dataclass fields are its options.

    axis: None for one statistic of the whole tensor, else the axis whose index is the channel
    (negative counts from the end); results then have shape [channels], else [].
    """

    name: ClassVar[str]
    kept: ClassVar[tuple[str, ...]]  # attributes that are the state, as numbers or arrays

    axis: int | None = None
    batches: int = field(default=0, init=False)

    def __init_subclass__(cls) -> None:
        if cls.name in REGISTRY:
            raise TypeError(f"two statistics are called {cls.name!r}")
        REGISTRY[cls.name] = cls

    def add(self, array: Any, /, *, ignore_below: float | None = None) -> None:
        """Take in one array (numpy, torch, or a Sample already prepared); an empty one is nothing.

        raises: DataError on NaN, Inf, or a number of channels that differs from before.
        """
        ready = isinstance(array, Sample)
        sample = array if ready else Sample(array, ignore_below=ignore_below)
        if sample.size:
            self._add(sample)
            self.batches += 1

    def merge(self, other: Self, /) -> Self:
        """Take in what `other` saw, as if added here after what is here; returns self."""
        if type(other) is not type(self) or other.options() != self.options():
            raise DataError(
                f"{self!r} cannot be merged with {other!r}",
                hint="merge statistics of one kind with equal options",
            )
        if other.batches and self.batches:
            self._merge(other)
            self.batches += other.batches
        elif other.batches:
            self.restore(other.state())
        return self

    @abstractmethod
    def result(self) -> Any:
        """A frozen dataclass; raises DataError when nothing was added."""

    @abstractmethod
    def _add(self, sample: Sample) -> None: ...

    @abstractmethod
    def _merge(self, other: Any) -> None: ...

    def options(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def state(self) -> dict[str, np.ndarray]:
        """A copy of everything seen, as arrays without Python objects."""
        kept = ("batches", *self.kept) if self.batches else ("batches",)
        return {key: np.array(getattr(self, key)) for key in kept}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Put back what state() gave."""
        self.batches = int(state["batches"])
        for key in self.kept if self.batches else ():
            array = np.array(state[key])
            setattr(self, key, array if array.ndim else array.item())

    def _seen(self) -> None:
        if not self.batches:
            raise DataError(
                f"{self.name} saw no values",
                hint="the value was never computed, was empty, or was wholly masked",
            )

    def _same_channels(self, before: Any, now: Any, sample: Sample) -> None:
        """Guard for per-channel statistics: `now` must have the shape of `before`."""
        if self.batches and np.shape(before) != np.shape(now):
            raise DataError(
                f"{self.name} along axis {self.axis} saw {np.shape(before)[0]} channels before"
                f" and {np.shape(now)[0]} now",
                at=None if sample.name is None else f"%{sample.name}",
                hint="that axis changes with the data: choose another axis or none",
            )


@dataclass(frozen=True, eq=False)
class Range:
    """Bounds of a value: float64 [] or [channels]; count: how many elements (or batches) counted.

    A channel that saw only masked elements has the empty range (0, 0).
    """

    low: np.ndarray
    high: np.ndarray
    count: int

    @property
    def absmax(self) -> np.ndarray:
        return np.maximum(np.abs(self.low), np.abs(self.high))


def as_range(low: Any, high: Any, count: int) -> Range:
    """A Range of float64 arrays, with never-seen channels (low > high) set to (0, 0)."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    empty = low > high
    return Range(np.where(empty, 0.0, low), np.where(empty, 0.0, high), count)
