"""How far the predictions of a quantized model are from those of the float one, token by token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from calib.metrics.perplexity import log_softmax
from ir.errors import DataError

_ROWS = 64


@dataclass(frozen=True)
class LogitsFigure:
    """kl: mean of KL(float || quantized) per token in nats, kl_99 its 99th percentile (NaN when a
    quantized logit is); top_k: mean share of the float model's k likeliest ids that are among
    the quantized one's; top_1: share of tokens whose likeliest id is the same."""

    kl: float
    kl_99: float
    top_k: float
    top_1: float
    k: int
    tokens: int


@dataclass
class Logits:
    """Running comparison of (reference, test) logits; merge() joins two as if one had seen all.

    Keeps one float64 per token, for the percentile.
    """

    k: int = 10
    kl: list[np.ndarray] = field(default_factory=list)
    shared: int = 0
    same: int = 0
    tokens: int = 0

    def add(self, reference: Any, test: Any, /) -> None:
        """Logits f[..., vocabulary], numpy or torch.

        raises: DataError for unequal shapes, fewer than k ids, or a reference not finite.
        """
        reference, test = np.asarray(reference), np.asarray(test)
        if reference.shape != test.shape or not reference.size:
            found = f"logits {list(reference.shape)} and {list(test.shape)}"
            raise DataError(f"{found} cannot be compared", hint="give equal shapes, not empty")
        if reference.shape[-1] < self.k:
            raise DataError(f"{reference.shape[-1]} ids have no {self.k} likeliest")
        if not np.isfinite(reference).all():
            raise DataError("the reference is not finite", hint="compare with the float model")
        ids = reference.shape[-1]
        reference, test = reference.reshape(-1, ids), test.reshape(-1, ids)
        for at in range(0, len(reference), _ROWS):
            self._add(reference[at : at + _ROWS], test[at : at + _ROWS])

    def _add(self, reference: np.ndarray, test: np.ndarray) -> None:
        self.kl.append(divergence(reference, test))
        whole = ~np.isnan(test).any(-1)
        self.tokens += len(reference)
        self.same += int(np.sum((reference.argmax(-1) == test.argmax(-1)) & whole))
        self.shared += int(overlap(reference, test, self.k)[whole].sum())

    def merge(self, other: Self, /) -> Self:
        if self.k != other.k:
            raise DataError(f"overlaps of the top {self.k} and {other.k} cannot be joined")
        self.kl += other.kl
        for key in ("shared", "same", "tokens"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        return self

    def result(self) -> LogitsFigure:
        if not self.tokens:
            raise DataError("nothing was compared", hint="give at least one token")
        kl = np.concatenate(self.kl)
        return LogitsFigure(
            float(kl.mean()), float(np.quantile(kl, 0.99)), self.shared / (self.k * self.tokens),
            self.same / self.tokens, self.k, self.tokens,
        )  # fmt: skip


def divergence(reference: np.ndarray, test: np.ndarray) -> np.ndarray:
    """f64[rows] of [rows, ids]: KL(softmax(reference) || softmax(test)) in nats."""
    wanted, found = log_softmax(reference), log_softmax(test)
    return (np.exp(wanted) * (wanted - found)).sum(-1)


def overlap(reference: np.ndarray, test: np.ndarray, k: int) -> np.ndarray:
    """i[rows] of [rows, ids]: how many of the k largest are the same; of equal values any."""
    member = np.zeros(reference.shape, bool)
    np.put_along_axis(member, _largest(reference, k), True, -1)
    return np.take_along_axis(member, _largest(test, k), -1).sum(-1)


def _largest(rows: np.ndarray, k: int) -> np.ndarray:
    return np.argpartition(rows, rows.shape[-1] - k, -1)[:, rows.shape[-1] - k :]
