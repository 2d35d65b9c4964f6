"""Pictures beside pictures of equal noise, and sets of pictures beside sets: arrays are numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy import linalg

from ir.errors import DataError


@dataclass
class Likeness:
    """Running comparison of (reference, test) pictures [n, channels, height, width].

    range: largest minus smallest possible value, 2 for pictures in -1..1. PSNR is that of the
    squared error over all pixels; SSIM (Wang et al. 2004: Gaussian window, sigma 1.5) is the mean
    over the pictures. Needs the `metrics` extra.
    """

    range: float
    squares: float = 0.0
    pixels: int = 0
    ssim: float = 0.0
    pictures: int = 0

    def add(self, reference: np.ndarray, test: np.ndarray, /) -> None:
        """raises: DataError when shapes differ, are not of rank 4, or the library is missing."""
        if reference.shape != test.shape or reference.ndim != 4:
            found = f"shapes {list(reference.shape)} and {list(test.shape)}"
            hint = "give equal arrays of rank 4: pictures, channels, height, width"
            raise DataError(f"pictures of {found} cannot be compared", hint=hint)
        measure = _library()
        reference, test = reference.astype(np.float64), test.astype(np.float64)
        self.squares += float(np.square(reference - test).sum())
        self.pixels += reference.size
        self.pictures += len(reference)
        for a, b in zip(reference, test, strict=True):
            self.ssim += float(
                measure(a, b, data_range=self.range, channel_axis=0, gaussian_weights=True,
                        sigma=1.5, use_sample_covariance=False)
            )  # fmt: skip

    def merge(self, other: Self, /) -> Self:
        if self.range != other.range:
            raise DataError(f"pictures of range {self.range} and {other.range} cannot be joined")
        for key in ("squares", "pixels", "ssim", "pictures"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        return self

    def result(self) -> Similarity:
        if not self.pictures:
            raise DataError("nothing was compared", hint="give at least one picture")
        error = self.squares / self.pixels
        psnr = math.inf if error == 0 else 10 * math.log10(self.range**2 / error)
        return Similarity(psnr, self.ssim / self.pictures, self.pictures)


@dataclass(frozen=True)
class Similarity:
    """psnr_db: inf when identical; ssim at most 1, which is identical."""

    psnr_db: float
    ssim: float
    pictures: int


@dataclass
class Gaussian:
    """Running mean and covariance of features [n, d], for the Frechet distance of two sets.

    Sums are float64 about the first batch's mean, so that a large mean costs no digits.
    """

    count: int = 0
    mean: np.ndarray | None = None
    scatter: np.ndarray | None = None

    def add(self, features: np.ndarray, /) -> None:
        """raises: DataError when the features are not finite or not [n, d]."""
        if features.ndim != 2 or not np.isfinite(features).all():
            hint = "give one row of features to a picture"
            raise DataError("features must be finite and of rank 2", hint=hint)
        if not len(features):
            return
        features = features.astype(np.float64)
        mean = features.mean(0)
        centred = features - mean
        self.merge(type(self)(len(features), mean, centred.T @ centred))

    def merge(self, other: Self, /) -> Self:
        """Chan et al. 1979: the scatter of a union."""
        if other.mean is None or other.scatter is None:
            return self
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = other.count, other.mean, other.scatter
            return self
        total, gap = self.count + other.count, other.mean - self.mean
        between = np.outer(gap, gap) * (self.count * other.count / total)
        self.scatter = self.scatter + other.scatter + between
        self.mean = self.mean + gap * (other.count / total)
        self.count = total
        return self

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """mean f64[d] and unbiased covariance f64[d, d]."""
        if self.count < 2 or self.mean is None or self.scatter is None:
            raise DataError("a covariance needs two pictures or more", hint="add more features")
        return self.mean, self.scatter / (self.count - 1)


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance of the two Gaussians (FID, arXiv:1706.08500); 0 = equal.

    |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)), the trace of the root taken by eigenvalues:
    those of A B are those of R B R with R = A^(1/2), which is symmetric, so nothing turns complex.
    It falls with the number of pictures: compare sets of equal sizes.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a.result(), b.result()
    values, vectors = linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    gap = mean_a - mean_b
    return float(max(0.0, gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * shared))


@dataclass
class ClassAccuracy:
    """Share of pictures that a judge gives the class they were drawn for."""

    right: int = 0
    pictures: int = 0

    def add(self, labels: np.ndarray, found: np.ndarray, /) -> None:
        """raises: DataError when the lengths differ."""
        if labels.shape != found.shape:
            raise DataError(f"{labels.shape} labels and {found.shape} classes do not pair")
        self.right += int((labels == found).sum())
        self.pictures += labels.size

    def merge(self, other: Self, /) -> Self:
        self.right += other.right
        self.pictures += other.pictures
        return self

    def result(self) -> float:
        if not self.pictures:
            raise DataError("nothing was judged", hint="give at least one picture")
        return self.right / self.pictures


def mean_slope(maps: np.ndarray) -> float:
    """Mean |height difference| of neighbours along a row, per pixel: maps [..., height, width]."""
    return float(np.abs(np.diff(maps.astype(np.float64), axis=-1)).mean())


def _library() -> Callable[..., Any]:
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise DataError("SSIM needs scikit-image", hint="pip install 'ptqc[metrics]'") from error
    return structural_similarity
