"""Boxes found against boxes that are there: precision, recall and F1 at one overlap threshold.

A box is (x0, y0, x1, y1), f32[n, 4], in any unit; boxes of no area overlap nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from scipy.optimize import linear_sum_assignment

from ir.errors import DataError

_DRAWS = 2000


@dataclass(frozen=True)
class DetectionScore:
    """Shares in [0, 1]; low and high: the 95 % bootstrap interval of f1 over images.

    precision is 1 when nothing was found, recall is 1 when nothing was there.
    """

    precision: float
    recall: float
    f1: float
    low: float
    high: float
    found: int
    wanted: int
    images: int


@dataclass
class Detection:
    """Counts per image; merge() joins two as if one had seen all."""

    threshold: float = 0.5
    seed: int = 0
    hits: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise DataError(f"an overlap threshold lies in (0, 1], found {self.threshold}")

    def add(self, wanted: np.ndarray, found: np.ndarray, /) -> None:
        """The boxes of one image: those that are there, those that were found."""
        self.hits.append(matches(iou(wanted, found), self.threshold))
        self.wanted.append(len(wanted))
        self.found.append(len(found))

    def merge(self, other: Self, /) -> Self:
        if self.threshold != other.threshold:
            raise DataError(
                f"detection at overlap {self.threshold} cannot take in {other.threshold}"
            )
        for key in ("hits", "found", "wanted"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        return self

    def result(self) -> DetectionScore:
        if not self.hits:
            raise DataError("no image was compared", hint="give at least one image")
        hits, found, wanted = (np.array(each) for each in (self.hits, self.found, self.wanted))
        precision = float(hits.sum() / found.sum()) if found.sum() else 1.0
        recall = float(hits.sum() / wanted.sum()) if wanted.sum() else 1.0
        rng = np.random.default_rng(self.seed)
        drawn = rng.integers(len(hits), size=(_DRAWS, len(hits)))
        spread = f1(hits[drawn].sum(1), found[drawn].sum(1), wanted[drawn].sum(1))
        low, high = (float(each) for each in np.quantile(spread, [0.025, 0.975]))
        whole = float(f1(hits.sum(), found.sum(), wanted.sum()))
        return DetectionScore(
            precision, recall, whole, low, high,
            int(found.sum()), int(wanted.sum()), len(hits),
        )  # fmt: skip


def f1(hits: np.ndarray, found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """2 hits / (found + wanted): the harmonic mean of precision and recall; 1 where all is 0."""
    total = np.asarray(found + wanted)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union f64[n, m] of boxes a [n, 4] and b [m, 4].

    raises: DataError for boxes of another shape, not finite, or with x1 < x0 or y1 < y0.
    """
    a, b = _boxes(a), _boxes(b)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    either = areas[0][:, None] + areas[1][None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def matches(overlaps: np.ndarray, threshold: float) -> int:
    """Most pairs of one wanted and one found box each that overlap by the threshold or more."""
    allowed = (overlaps >= threshold).astype(np.float64)
    rows, columns = linear_sum_assignment(allowed, maximize=True)
    return int(allowed[rows, columns].sum())


def _boxes(boxes: np.ndarray) -> np.ndarray:
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise DataError(f"boxes are [n, 4], found {list(array.shape)}")
    if not np.isfinite(array).all() or (array[:, 2:] < array[:, :2]).any():
        raise DataError("a box is not finite, or ends before it starts", hint="x0 y0 x1 y1")
    return array
