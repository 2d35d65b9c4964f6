"""How often a classifier is right, and how often it says what the float model says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from calib.metrics.difference import Agreement
from ir.errors import DataError

_Z95 = 1.959963984540054  # normal quantile of 0.975


@dataclass(frozen=True)
class Share:
    """rate in [0, 1]: hits / samples; low and high: its 95 % Wilson interval."""

    rate: float
    low: float
    high: float
    hits: int
    samples: int


@dataclass
class TopK:
    """Running share of rows whose label is among the k largest logits.

    Of equal logits the lower class ranks first, as argmax has it.
    """

    k: int = 1
    hits: int = 0
    samples: int = 0

    def add(self, labels: np.ndarray, logits: np.ndarray, /) -> None:
        """labels i64[n] in 0..classes-1, logits f32[n, classes].

        raises: DataError when they do not pair, a label is no class or a logit is NaN.
        """
        labels, logits = np.asarray(labels), np.asarray(logits)
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            found = f"labels {list(labels.shape)} and logits {list(logits.shape)}"
            raise DataError(f"{found} do not pair", hint="give one label to a row of logits")
        classes = logits.shape[1]
        if not 1 <= self.k <= classes:
            raise DataError(f"top-{self.k} of {classes} classes", hint="choose a smaller k")
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise DataError(f"a label is outside 0..{classes - 1}", hint="check the labels")
        if np.isnan(logits).any():
            raise DataError(
                "the logits hold NaN", hint="compare the graphs to find where it starts"
            )
        best = np.argsort(-logits, axis=1, kind="stable")[:, : self.k]
        self.hits += int((best == labels[:, None]).any(1).sum())
        self.samples += len(labels)

    def merge(self, other: Self, /) -> Self:
        if self.k != other.k:
            raise DataError(f"top-{self.k} and top-{other.k} cannot be joined")
        self.hits += other.hits
        self.samples += other.samples
        return self

    def result(self) -> Share:
        return share(self.hits, self.samples)


@dataclass(frozen=True)
class Scores:
    """agreement: with the float model's top-1; None when no float logits were given."""

    top1: Share
    top5: Share
    agreement: Share | None


@dataclass
class Classification:
    """Top-1, top-5 and agreement of one classifier, batch by batch."""

    top1: TopK = field(default_factory=TopK)
    top5: TopK = field(default_factory=lambda: TopK(5))
    agreement: Agreement = field(default_factory=Agreement)

    def add(
        self, labels: np.ndarray, logits: np.ndarray, reference: np.ndarray | None = None, /
    ) -> None:
        """reference: the float model's logits of the same rows, of the same shape."""
        self.top1.add(labels, logits)
        self.top5.add(labels, logits)
        if reference is not None:
            self.agreement.add(reference, logits)

    def merge(self, other: Self, /) -> Self:
        self.top1.merge(other.top1)
        self.top5.merge(other.top5)
        self.agreement.merge(other.agreement)
        return self

    def result(self) -> Scores:
        same = self.agreement
        agreed = share(int(same.equal), same.rows) if same.rows else None
        return Scores(self.top1.result(), self.top5.result(), agreed)


def share(hits: int, samples: int) -> Share:
    """raises: DataError of no samples."""
    if not samples:
        raise DataError("nothing was classified", hint="give at least one sample")
    return Share(hits / samples, *wilson(hits, samples), hits, samples)


def wilson(hits: int, samples: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927): where |p - rate| = z sqrt(p (1 - p) / n)."""
    rate, z2 = hits / samples, _Z95**2 / samples
    centre, half = rate + z2 / 2, _Z95 * math.sqrt(rate * (1 - rate) / samples + z2 / (4 * samples))
    return max(0.0, (centre - half) / (1 + z2)), min(1.0, (centre + half) / (1 + z2))
