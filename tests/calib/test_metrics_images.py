"""PSNR, SSIM and the Frechet distance against closed forms and slow twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import linalg

from calib.metrics.images import ClassAccuracy, Gaussian, Likeness, frechet, mean_slope
from ir.errors import DataError


def pictures(n=3, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 1, 28, 28)).astype(np.float32)


def likeness(a, b):
    found = Likeness(2.0)
    found.add(a, b)
    return found.result()


def test_psnr_of_a_known_error():
    assert likeness(pictures(), pictures() + 0.2).psnr_db == pytest.approx(20, abs=1e-4)


def test_identical_pictures():
    found = likeness(pictures(), pictures())
    assert found.psnr_db == math.inf
    assert found.ssim == pytest.approx(1)


def test_ssim_of_flat_pictures_is_its_luminance_term():
    a, b = np.full((1, 1, 28, 28), 0.2), np.full((1, 1, 28, 28), 0.6)
    c1 = (0.01 * 2) ** 2
    want = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    assert likeness(a, b).ssim == pytest.approx(want, rel=1e-6)


def test_ssim_falls_with_noise_and_is_near_zero_for_another_picture():
    a, other = pictures(), pictures(seed=1)
    little, much = (likeness(a, a + s * other).ssim for s in (0.1, 0.5))
    assert 1 > little > much > 0.3
    assert abs(likeness(a, other).ssim) < 0.1


def test_merged_is_as_if_one_had_seen_all():
    a, b = pictures(5), pictures(5) + 0.1 * pictures(5, 1)
    one, two = Likeness(2.0), Likeness(2.0)
    one.add(a[:2], b[:2])
    two.add(a[2:], b[2:])
    joined, whole = one.merge(two).result(), likeness(a, b)
    assert joined.psnr_db == pytest.approx(whole.psnr_db)
    assert joined.ssim == pytest.approx(whole.ssim)
    assert joined.pictures == 5


def gaussian(features, pieces=1):
    found = Gaussian()
    for part in np.array_split(features, pieces):
        found.merge(_one(part))
    return found


def _one(part):
    found = Gaussian()
    found.add(part)
    return found


def exact(mean, cov):
    """A Gaussian of the given moments."""
    return Gaussian(2, np.asarray(mean, float), np.asarray(cov, float))


def test_moments_are_numpys_even_far_from_zero():
    features = np.random.default_rng(0).normal(1e6, [1, 2, 3], (101, 3))
    mean, cov = gaussian(features, 4).result()
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.cov(features.T), rtol=1e-8, atol=1e-8)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.0])
    want = 14.0 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet(exact([0, 0, 0], np.diag(a)), exact([1, 2, 3], np.diag(b))) == pytest.approx(
        want
    )


def test_frechet_is_that_of_the_matrix_root_and_symmetric():
    rng = np.random.default_rng(0)
    a, b = (
        gaussian(rng.normal(size=(50, 6))),
        gaussian(rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))),
    )
    (m, p), (k, q) = a.result(), b.result()
    want = np.square(m - k).sum() + np.trace(p + q - 2 * linalg.sqrtm(p @ q).real)
    assert frechet(a, b) == pytest.approx(want)
    assert frechet(b, a) == pytest.approx(want)


def test_frechet_to_itself_is_zero_and_survives_singular_covariances():
    few = gaussian(np.random.default_rng(0).normal(size=(4, 20)))
    assert frechet(few, few) == pytest.approx(0, abs=1e-6)


def test_class_accuracy_and_slope():
    found, other = ClassAccuracy(), ClassAccuracy()
    found.add(np.array([1, 2, 3]), np.array([1, 0, 3]))
    other.add(np.array([4]), np.array([0]))
    assert found.merge(other).result() == 0.5
    assert mean_slope(np.arange(12.0).reshape(3, 4) * 2) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Likeness(2.0).result(),
        lambda: Likeness(2.0).add(pictures(2), pictures(3)),
        lambda: Likeness(2.0).merge(Likeness(1.0)),
        lambda: ClassAccuracy().result(),
        lambda: ClassAccuracy().add(np.zeros(2), np.zeros(3)),
        lambda: Gaussian().add(np.full((2, 2), np.nan)),
        lambda: gaussian(np.ones((1, 2))).result(),
    ],
)
def test_what_cannot_be_measured_is_said(wrong):
    with pytest.raises(DataError):
        wrong()
