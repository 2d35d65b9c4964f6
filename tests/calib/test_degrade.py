"""Degraders: same seed same pixels, the strength that was asked for, uint8 in and out."""

import numpy as np
import pytest

from calib.degrade.images import QRID, Blur, Contrast, Jpeg, Noise, OneOf
from calib.degrade.mix import every, mix
from ir.errors import DataError

GREY = np.full((64, 64, 3), 127, np.uint8)
SCENE = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8).repeat(6, 0)
SCENE = SCENE.repeat(6, 1)


@pytest.mark.parametrize("name", QRID)
@pytest.mark.parametrize("image", [SCENE, SCENE[..., 0], SCENE[..., :1]], ids=["rgb", "hw", "hw1"])
def test_a_seed_decides_everything_and_form_is_kept(name, image):
    before = image.copy()
    one, same, other = (QRID[name](image, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.shape == image.shape
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(image, before)
    assert (one != image).mean() > 0.05
    assert name.startswith("blur") or (one != other).any()


@pytest.mark.parametrize("variance", [10, 50, 150])
def test_noise_has_its_variance_in_squared_steps(variance):
    noisy = Noise(variance, variance)(GREY.repeat(4, 0), np.random.default_rng(0))
    assert noisy.astype(float).var() == pytest.approx(variance + 1 / 12, rel=0.03)
    assert noisy.mean() == pytest.approx(127, abs=0.3)


def slow_blur(image, kernel):
    """One weighted sum per pixel, the edges mirrored."""
    half = kernel // 2
    sigma = 0.3 * (half - 1) + 0.8
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    window = np.outer(weights, weights) / weights.sum() ** 2
    wide = np.pad(image.astype(float), half, mode="reflect")
    rows, columns = image.shape
    return np.array([[(wide[y : y + kernel, x : x + kernel] * window).sum()
                      for x in range(columns)] for y in range(rows)])  # fmt: skip


@pytest.mark.parametrize("kernel", [3, 5, 11])
def test_blur_is_the_plain_weighted_sum(kernel):
    image = np.random.default_rng(1).integers(0, 256, (14, 13)).astype(np.uint8)
    found = Blur(kernel, kernel)(image, np.random.default_rng(0))
    assert np.abs(found - slow_blur(image, kernel)).max() <= 0.5 + 1e-6


def test_contrast_scales_around_middle_grey():
    image = np.array([[27, 127, 227]], np.uint8)
    found = Contrast(-0.5, -0.5)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(found, [[77, 127, 177]])
    full = Contrast(0.9, 0.9)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(full, [[0, 127, 255]])


def test_lower_jpeg_quality_is_further_away():
    def error(quality):
        read = Jpeg(quality, quality)(SCENE, np.random.default_rng(0))
        return float(((read.astype(float) - SCENE) ** 2).mean())

    assert error(20) > error(45) > error(75) > error(95) > 0


def test_one_of_draws_every_member():
    choice = OneOf((Contrast(-0.5, -0.5), Contrast(-0.9, -0.9)))
    image, rng = np.full((1, 1), 227, np.uint8), np.random.default_rng(0)
    assert {int(choice(image, rng)[0, 0]) for _ in range(20)} == {177, 137}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Noise(-1, 2), lambda: Noise(3, 2), lambda: Blur(4, 4), lambda: Blur(5, 3),
        lambda: Contrast(-1.5, 0), lambda: Jpeg(0, 50), lambda: Jpeg(50, 96), lambda: OneOf(()),
        lambda: Noise(1, 1)(GREY / 255, np.random.default_rng(0)),
        lambda: Noise(1, 1)(GREY[0, 0], np.random.default_rng(0)),
        lambda: Jpeg(50, 50)(np.zeros((8, 8, 4), np.uint8), np.random.default_rng(0)),
        lambda: mix([1], [], 0.5, 0), lambda: mix([1], [], -0.1, 0), lambda: mix([1], [], 1.1, 0),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(DataError):
        make()


def test_ratio_zero_is_the_clean_set_itself():
    clean = [SCENE, GREY]
    assert all(a is b for a, b in zip(mix(clean, [], 0, 7), clean, strict=True))


@pytest.mark.parametrize(("ratio", "count"), [(0.25, 5), (0.5, 10), (1, 20)])
def test_a_mix_degrades_its_share_by_the_seed(ratio, count):
    clean = [np.full((4, 4), i, np.uint8) for i in range(20)]
    degraders = [Noise(400, 400), Contrast(-0.9, -0.9)]
    mixed = mix(clean, degraders, ratio, 3)
    kept = [a is b for a, b in zip(mixed, clean, strict=True)]
    assert kept.count(False) == count
    assert all((a == b).all() for a, b in zip(mixed, mix(clean, degraders, ratio, 3), strict=True))
    half = mix(clean, degraders, ratio / 2, 3)
    assert all((a == b).all() for a, b, c in zip(half, mixed, clean, strict=True) if a is not c)
    if ratio < 1:
        assert kept != [a is b for a, b in zip(mix(clean, degraders, ratio, 4), clean, strict=True)]


def test_every_degrades_all():
    clean = [GREY, GREY]
    one, two = every(clean, Noise(20, 20), 0)
    assert (one != GREY).any()
    assert (one != two).any()
