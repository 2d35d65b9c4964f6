"""Perplexity of a token stream, cut into windows whose scored parts do not overlap.

A figure is of one tokenizer, one window and one stride: state them beside it. Targets are scored
with the context that their window gives them, so a stride below the window gives every token
after the first window at least window - stride tokens of context; stride = window is the usual
cut into chunks, whose first tokens are not scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from calib.metrics.words import interval
from ir.errors import DataError

_ROWS = 64
"""Rows of logits at a time in float64: a vocabulary of 50 k is 25 MB then."""


@dataclass(frozen=True)
class Window:
    """ids i64[tokens], of which `ids[first:]` are scored, first >= 1."""

    ids: np.ndarray
    first: int

    @property
    def targets(self) -> np.ndarray:
        return self.ids[self.first :]

    def scored(self, logits: np.ndarray) -> np.ndarray:
        """The rows of f[tokens, vocabulary] that predict `targets`."""
        return logits[self.first - 1 : -1]


def windows(tokens: np.ndarray, window: int, stride: int | None = None) -> Iterator[Window]:
    """Windows of at most `window` tokens, `stride` (default: `window`) apart, up to the last token.

    Every token is scored once at most; with stride < window every one but the first, with stride =
    window all but the first of each window.

    raises: DataError unless 1 <= stride <= window and 2 <= window, or with under two tokens.
    """
    stride = window if stride is None else stride
    if not (1 <= stride <= window and window >= 2):
        hint = "a window of at least 2 tokens, a stride of at most the window"
        raise DataError(f"windows of {window} tokens cannot be {stride} apart", hint=hint)
    if len(tokens) < 2:
        raise DataError(f"{len(tokens)} tokens hold nothing to predict")
    done = 1
    for start in range(0, len(tokens), stride):
        end = min(start + window, len(tokens))
        first = max(done, start + 1)
        if first < end:
            yield Window(tokens[start:end], first - start)
        done = max(done, end)
        if end == len(tokens):
            return


@dataclass(frozen=True)
class PerplexityFigure:
    """perplexity: exp of `nll`, the mean negative log-likelihood per token in nats; low and high
    its 95 % bootstrap interval over windows (of one window: equal to it)."""

    perplexity: float
    low: float
    high: float
    nll: float
    tokens: int
    windows: int


@dataclass
class Perplexity:
    """Sums per window; merge() joins two as if one had seen all."""

    seed: int = 0
    nll: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def add(self, logits: Any, targets: Any, /) -> None:
        """One window: logits f[..., vocabulary] and the ids i[...] that came, numpy or torch.

        raises: DataError for unequal shapes, ids outside the vocabulary, or no target.
        """
        logits, targets = np.asarray(logits), np.asarray(targets)
        if logits.shape[:-1] != targets.shape or not targets.size:
            found = f"logits {list(logits.shape)} for targets {list(targets.shape)}"
            raise DataError(found, hint="one row of logits per target, at least one")
        if targets.min() < 0 or targets.max() >= logits.shape[-1]:
            raise DataError(f"a target is not one of {logits.shape[-1]} ids")
        self.nll.append(-float(log_likelihoods(logits, targets).sum()))
        self.tokens.append(targets.size)

    def merge(self, other: Self, /) -> Self:
        self.nll += other.nll
        self.tokens += other.tokens
        return self

    def result(self) -> PerplexityFigure:
        if not self.tokens:
            raise DataError("nothing was scored", hint="give at least one window")
        mean = sum(self.nll) / sum(self.tokens)
        low, high = interval(np.array(self.nll), np.array(self.tokens), self.seed)
        return PerplexityFigure(
            _exp(mean), _exp(low), _exp(high), mean, sum(self.tokens), len(self.tokens)
        )


def log_likelihoods(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """f64[rows]: log softmax(logits)[target] per row of the flattened leading axes."""
    rows, ids = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    parts = []
    for at in range(0, len(rows), _ROWS):
        some, wanted = log_softmax(rows[at : at + _ROWS]), ids[at : at + _ROWS]
        parts.append(some[np.arange(len(wanted)), wanted])
    return np.concatenate(parts)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In float64 over the last axis."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _exp(nats: float) -> float:
    return math.inf if nats > 700 else math.exp(nats)
