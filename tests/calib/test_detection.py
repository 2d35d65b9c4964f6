"""Boxes: overlap against counted pixels, matching against all matchings, scores by hand."""

from itertools import permutations

import numpy as np
import pytest

from calib.metrics.detection import Detection, iou, matches
from ir.errors import DataError

NONE = np.zeros((0, 4), np.float32)


def boxes(rng, count):
    corners = np.sort(rng.integers(0, 13, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def pixels(box):
    x0, y0, x1, y1 = box.astype(int)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


@pytest.mark.parametrize("seed", range(4))
def test_overlap_counts_pixels(seed):
    rng = np.random.default_rng(seed)
    a, b = boxes(rng, 6), boxes(rng, 5)
    for i, row in enumerate(iou(a, b)):
        for j, found in enumerate(row):
            both, either = pixels(a[i]) & pixels(b[j]), pixels(a[i]) | pixels(b[j])
            assert found == pytest.approx(len(both) / len(either) if either else 0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5])
def test_matching_is_the_best_of_all(seed, threshold):
    rng = np.random.default_rng(seed)
    overlaps = rng.random((4, 5)) * (rng.random((4, 5)) < 0.4)
    best = max(sum(overlaps[i, j] >= threshold for i, j in enumerate(order))
               for order in permutations(range(5), 4))  # fmt: skip
    assert matches(overlaps, threshold) == best


def test_one_box_is_matched_once_and_scores_are_shares():
    found = Detection(0.5)
    box = np.float32([[0, 0, 10, 10]])
    found.add(box, np.concatenate([box, box, box + 100]))  # a copy is a false alarm
    found.add(np.concatenate([box, box + 50]), NONE)
    score = found.result()
    assert (score.precision, score.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert score.f1 == pytest.approx(1 / 3)
    assert (score.found, score.wanted, score.images) == (3, 3, 2)
    assert (score.low, score.high) == (0, 0.5)


def test_the_threshold_itself_counts():
    half = np.float32([[0, 0, 10, 5]])
    for threshold, hits in ((0.5, 1), (0.51, 0)):
        found = Detection(threshold)
        found.add(np.float32([[0, 0, 10, 10]]), half)
        assert found.result().f1 == hits


def test_merge_is_one_pass():
    rng = np.random.default_rng(0)
    pairs = [(boxes(rng, rng.integers(5)), boxes(rng, rng.integers(5))) for _ in range(9)]
    whole, first, second = Detection(0.2), Detection(0.2), Detection(0.2)
    for i, pair in enumerate(pairs):
        whole.add(*pair)
        (first if i < 4 else second).add(*pair)
    assert first.merge(second).result() == whole.result()
    assert 0 < whole.result().f1 < 1


def test_nothing_there_and_nothing_found_is_right():
    found = Detection()
    found.add(NONE, NONE)
    assert found.result().f1 == 1


def test_refusals():
    with pytest.raises(DataError, match="no image"):
        Detection().result()
    with pytest.raises(DataError, match="threshold"):
        Detection(0)
    with pytest.raises(DataError, match="take in"):
        Detection(0.5).merge(Detection(0.6))
    for bad in ([[0, 0, 1]], [[5, 0, 1, 1]], [[0, 0, np.nan, 1]]):
        with pytest.raises(DataError):
            iou(np.float32(bad), NONE)
