"""The yardsticks against slow obvious twins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import metrics


@pytest.fixture
def outputs() -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    rng = np.random.default_rng(0)
    expected = [[rng.standard_normal((2, 5)), rng.standard_normal(3)] for _ in range(4)]
    found = [[a + 0.1 * rng.standard_normal(a.shape) for a in arrays] for arrays in expected]
    return expected, found


def test_sqnr_and_cosine_of_all_feeds_laid_end_to_end(outputs) -> None:
    expected, found = outputs
    a = [float(x) for arrays in expected for array in arrays for x in array.ravel()]
    b = [float(x) for arrays in found for array in arrays for x in array.ravel()]
    noise = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    assert metrics.sqnr_db(expected, found) == pytest.approx(
        10 * math.log10(sum(x * x for x in a) / noise)
    )
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    assert metrics.cosine(expected, found) == pytest.approx(dot / math.hypot(*a) / math.hypot(*b))


def test_equal_outputs_are_infinitely_near_and_zeros_are_not(outputs) -> None:
    expected, _ = outputs
    zeros = [[np.zeros_like(a) for a in arrays] for arrays in expected]
    assert metrics.sqnr_db(expected, expected) == math.inf
    assert metrics.sqnr_db(expected, zeros) == 0
    assert metrics.cosine(expected, zeros) == 0


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.sqnr_db([[np.ones((2, 3))]], [[np.ones((3, 2))]])


def test_padding_does_not_count() -> None:
    expected = [[np.array([[[1.0, 2], [3, 4]]])]]
    found = [[np.array([[[1.0, 2], [0, 0]]])]]
    keep = [np.array([[True, False]])]
    assert metrics.sqnr_db(metrics.at(expected, keep), metrics.at(found, keep)) == math.inf
    assert metrics.sqnr_db(expected, found) < 1


def test_agreement_and_accuracy_count_predictions() -> None:
    expected = [[np.array([[1.0, 0], [0, 1]])], [np.array([[0.0, 2]])]]
    found = [[np.array([[1.0, 0], [1, 0]])], [np.array([[0.0, 2]])]]
    labels = [np.array([1, 0]), np.array([1])]
    assert metrics.agreement(expected, found, labels) == pytest.approx(2 / 3)
    assert metrics.accuracy(expected, found, labels) == pytest.approx(2 / 3)
    assert metrics.accuracy(expected, expected, labels) == pytest.approx(1 / 3)


def test_mask_iou() -> None:
    expected = [[np.array([0.9, 0.9, 0.1, 0.1])]]
    found = [[np.array([0.9, 0.2, 0.5, 0.1])]]
    assert metrics.mask_iou(expected, found, [None]) == pytest.approx(1 / 3)
