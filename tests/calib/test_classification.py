"""Top-k and agreement against loops, the interval against its own equation."""

from __future__ import annotations

import numpy as np
import pytest

from calib.metrics.classification import Classification, TopK, wilson
from ir.errors import DataError


def drawn(n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    logits = rng.integers(0, 6, (n, 8)).astype(np.float32)  # with many ties
    return rng.integers(0, 8, n), logits, logits + rng.normal(size=(n, 8)).astype(np.float32)


def slow_hits(labels: np.ndarray, logits: np.ndarray, k: int) -> int:
    hits = 0
    for label, row in zip(labels, logits, strict=True):
        ranked = sorted(range(len(row)), key=lambda c: (-row[c], c))
        hits += label in ranked[:k]
    return hits


def test_counts_are_those_of_a_loop_and_joined_parts_are_the_whole():
    labels, logits, reference = drawn()
    whole, first, second = Classification(), Classification(), Classification()
    whole.add(labels, logits, reference)
    first.add(labels[:23], logits[:23], reference[:23])
    second.add(labels[23:], logits[23:], reference[23:])
    scores = whole.result()
    assert first.merge(second).result() == scores
    assert 0 < scores.top1.hits == slow_hits(labels, logits, 1)
    assert scores.top1.hits < scores.top5.hits == slow_hits(labels, logits, 5)
    same = sum(a.argmax() == b.argmax() for a, b in zip(logits, reference, strict=True))
    assert scores.agreement is not None
    assert 0 < scores.agreement.hits == same < scores.agreement.samples == 60


@pytest.mark.parametrize(("hits", "samples"), [(1, 3), (50, 60), (9200, 10000)])
def test_ends_of_the_interval_solve_its_equation(hits, samples):
    low, high = wilson(hits, samples)
    assert low < hits / samples < high
    for p in (low, high):
        deviation = 1.959964 * (p * (1 - p) / samples) ** 0.5
        assert abs(p - hits / samples) == pytest.approx(deviation, rel=1e-5)


def test_the_interval_of_all_or_nothing_is_not_empty():
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))


def test_what_cannot_be_counted_is_refused():
    labels, logits, _ = drawn()
    nan = np.where(np.arange(8) == 3, np.nan, logits)
    for bad in ((labels[1:], logits), (labels + 8, logits), (labels, nan)):
        with pytest.raises(DataError):
            TopK().add(*bad)
    with pytest.raises(DataError, match="top-9 of 8"):
        TopK(9).add(labels, logits)
    with pytest.raises(DataError, match="cannot be joined"):
        TopK(1).merge(TopK(5))
    with pytest.raises(DataError, match="nothing was classified"):
        Classification().result()
