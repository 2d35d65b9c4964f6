"""The figures of the terrain maps, on made maps and on the model's own."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest

from models import terrain_unet
from models.terrain_maps import compare_maps


def test_a_constant_offset_of_heights_shows_in_the_likeness_and_not_in_the_slope():
    top = terrain_unet.postprocess(np.ones(1))[0]
    assert top == pytest.approx(terrain_unet.HEIGHT_RANGE, rel=1e-6)
    flat, high = np.full((2, 1, 128, 128), -1.0), np.ones((2, 1, 128, 128))
    found = compare_maps(flat, high)
    assert found.likeness.psnr_db == pytest.approx(0, abs=1e-4)
    assert (found.slope, found.slope_float) == (0, 0)


def test_slopes_are_metres_a_pixel():
    unit = np.zeros((1, 1, 128, 128))
    unit[..., ::2] = -1  # heights 0 and the middle's in turn
    middle = terrain_unet.postprocess(np.zeros(1))[0]
    assert compare_maps(unit, -np.ones_like(unit)).slope_float == pytest.approx(middle)


@pytest.mark.slow
def test_the_models_own_maps():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(terrain_unet.load()), options)
    (feed,) = terrain_unet.evaluation(1)
    maps = session.run(None, feed)[0]
    moved = session.run(None, feed | {"noisy": feed["noisy"] * np.float32(1.02)})[0]
    same, near = compare_maps(maps, maps), compare_maps(maps, moved)
    assert same.likeness.psnr_db == math.inf
    assert 0.1 < near.likeness.ssim < 1
    assert near.slope_float > 0
