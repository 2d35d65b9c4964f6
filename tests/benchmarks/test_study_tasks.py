"""The parts of the tasks that have an answer of their own."""

from __future__ import annotations

import numpy as np

from benchmarks.study.tasks.detection import boxes
from benchmarks.study.tasks.speech import changed


def test_regions_grow_back_to_the_boxes_they_were_shrunk_from():
    """A box of 60 x 20 is marked 60 x 20 less A (1 - 0.16) / L = 6.3 on every side."""
    probability = np.zeros((64, 96), np.float32)
    shrunk = 60 * 20 * (1 - 0.16) / (2 * (60 + 20))
    left, top, right, bottom = 20, 20, 80, 40
    inner = [round(v) for v in (left + shrunk, top + shrunk, right - shrunk, bottom - shrunk)]
    probability[inner[1] : inner[3], inner[0] : inner[2]] = 0.9
    probability[2, 2] = 1  # too small to count
    (found,) = boxes(probability)
    np.testing.assert_allclose(found, (left, top, right, bottom), atol=2.5)


def test_no_region_no_box():
    assert boxes(np.zeros((8, 8), np.float32)).shape == (0, 4)


def test_waves_change_as_the_condition_says():
    wave = np.sin(np.linspace(0, 300, 8000)).astype(np.float32)
    assert changed(wave, "clean", 0) is wave
    noisy = changed(wave, "noise_10db", 0)
    assert abs(10 * np.log10(np.square(wave).sum() / np.square(noisy - wave).sum()) - 10) < 0.01
    assert len(changed(wave, "slow", 0)) > len(wave) > len(changed(wave, "fast", 0))
