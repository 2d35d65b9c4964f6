"""Word error rate of transcripts: errors by alignment, and how sure the figure is.

Both sides pass Whisper's English normaliser (case, punctuation, spelling, numbers), the one the
Open ASR leaderboard uses; package `whisper-normalizer`, alignment by `jiwer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

import numpy as np

from ir.errors import DataError

_DRAWS = 2000


@dataclass(frozen=True)
class WordErrorRate:
    """rate: errors / words over all clips (may exceed 1), low and high its 95 % bootstrap interval
    over clips; mean, median: of the clips' own rates; loops: share of clips that end in a loop."""

    rate: float
    low: float
    high: float
    mean: float
    median: float
    loops: float
    errors: int
    words: int
    clips: int


@dataclass
class WordErrors:
    """Counts per clip; merge() joins two as if one had seen all."""

    seed: int = 0
    errors: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    loops: list[bool] = field(default_factory=list)

    def add(self, reference: str, hypothesis: str, /) -> None:
        """raises: DataError when nothing is left of `reference` after the normaliser."""
        wanted, found = normalize(reference), normalize(hypothesis)
        if not wanted:
            raise DataError("a reference transcript without words", at=repr(reference))
        self.errors.append(word_errors(wanted, found))
        self.words.append(len(wanted))
        self.loops.append(loop_start(hypothesis.split()) is not None)

    def merge(self, other: Self, /) -> Self:
        for key in ("errors", "words", "loops"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        return self

    def result(self) -> WordErrorRate:
        if not self.words:
            raise DataError("no transcript was compared", hint="give at least one clip")
        errors, words = np.array(self.errors), np.array(self.words)
        low, high = interval(errors, words, self.seed)
        rates = errors / words
        return WordErrorRate(
            rate=float(errors.sum() / words.sum()), low=low, high=high,
            mean=float(rates.mean()), median=float(np.median(rates)),
            loops=float(np.mean(self.loops)),
            errors=int(errors.sum()), words=int(words.sum()), clips=len(words),
        )  # fmt: skip


def interval(errors: np.ndarray, words: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of sum(errors) / sum(words), clips drawn with repetition."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(words), size=(_DRAWS, len(words)))
    low, high = np.quantile(errors[drawn].sum(1) / words[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Fewest substitutions, deletions and insertions from one word list to the other."""
    if not reference:
        return len(hypothesis)
    found = _jiwer().process_words(" ".join(reference), " ".join(hypothesis))
    return found.substitutions + found.deletions + found.insertions


def normalize(text: str) -> list[str]:
    """Words as Whisper's English normaliser leaves them: "Twenty-one colours!" is 21, colors."""
    return _normalizer()(text).split()


def loop_start(items: Sequence[Any], times: int = 4, longest: int = 12) -> int | None:
    """Where the run starts that ends `items` and says one phrase `times` times or more.

    A phrase has 1 to `longest` items. One of 1 or 2 must fill 2 * `times` items: a digit may well
    be said four times. None: the end is no loop.
    """
    for length in range(1, min(longest, len(items) // times) + 1):
        phrase = list(items[len(items) - length :])
        start = len(items) - length
        while start >= length and list(items[start - length : start]) == phrase:
            start -= length
        said = (len(items) - start) // length
        if said >= times and (length >= 3 or said * length >= 2 * times):
            return start
    return None


@cache
def _normalizer() -> Callable[[str], str]:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise DataError(f"word error rates need {error.name}", hint=_INSTALL) from error
    return EnglishTextNormalizer()


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise DataError(f"word error rates need {error.name}", hint=_INSTALL) from error
    return jiwer


_INSTALL = "run: pip install jiwer whisper-normalizer"
