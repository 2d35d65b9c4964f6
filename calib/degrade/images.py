"""Images made worse: noise, blur, contrast and JPEG on uint8 pixels, before any preprocessing.

An image is u8[height, width] or u8[height, width, channels]; the result has its shape and type.
Every degrader is a frozen dataclass called with (image, rng). Degraders with a range draw their
strength from it, uniformly, for each image. The named strengths are those of QRID,
arXiv:2508.19600. After resizing or normalising, the same numbers would mean another strength.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ir.errors import DataError


class Degrader(Protocol):
    def __call__(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Noise:
    """Gaussian noise, independent per pixel and channel; variance in squared steps of 0..255."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high, 0, np.inf, "a noise variance")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        _check(image)
        deviation = np.sqrt(rng.uniform(self.low, self.high))
        return _pixels(image + deviation * rng.standard_normal(image.shape))


@dataclass(frozen=True)
class Blur:
    """Gaussian blur by an odd kernel of low..high pixels, edges reflected.

    sigma = 0.3 ((kernel - 1) / 2 - 1) + 0.8: OpenCV's rule for a kernel whose sigma is not given.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        _ordered(self.low, self.high, 1, np.inf, "a blur kernel")
        if not (self.low % 2 and self.high % 2):
            raise DataError("a blur kernel has an odd number of pixels", hint="give odd numbers")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        _check(image)
        from scipy.ndimage import gaussian_filter

        kernel = self.low + 2 * int(rng.integers((self.high - self.low) // 2 + 1))
        half = (kernel - 1) // 2
        if not half:
            return image.copy()
        sigma = 0.3 * (half - 1) + 0.8
        blurred = gaussian_filter(
            image.astype(np.float64), sigma, mode="mirror", radius=half, axes=(0, 1)
        )
        return _pixels(blurred)


@dataclass(frozen=True)
class Contrast:
    """Distance from middle grey, 127, times (1 + change); change drawn from low..high, from -1."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high, -1, np.inf, "a change of contrast")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        _check(image)
        factor = 1 + rng.uniform(self.low, self.high)
        return _pixels((image.astype(np.float64) - 127) * factor + 127)


@dataclass(frozen=True)
class Jpeg:
    """Written as JPEG of a quality drawn from low..high (1 to 95) and read again."""

    low: int
    high: int

    def __post_init__(self) -> None:
        _ordered(self.low, self.high, 1, 95, "a JPEG quality")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        _check(image)
        from PIL import Image

        if image.ndim == 3 and image.shape[2] not in (1, 3):
            raise DataError(
                f"JPEG holds 1 or 3 channels, found {image.shape[2]}", hint="drop the alpha channel"
            )
        flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        quality = int(rng.integers(self.low, self.high + 1))
        stream = io.BytesIO()
        Image.fromarray(flat).save(stream, "JPEG", quality=quality)
        with Image.open(stream) as read:
            return np.asarray(read).reshape(image.shape)


@dataclass(frozen=True)
class OneOf:
    """One of the degraders, drawn anew for each image: the mixture of QRID."""

    degraders: tuple[Degrader, ...]

    def __post_init__(self) -> None:
        if not self.degraders:
            raise DataError("a mixture of no degraders", hint="name at least one")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, /) -> np.ndarray:
        return self.degraders[int(rng.integers(len(self.degraders)))](image, rng)


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise DataError(
            f"images are degraded as u8[height, width(, channels)], found {image.dtype} "
            f"of {image.ndim} axes",
            hint="degrade before preprocessing",
        )


def _ordered(low: float, high: float, least: float, most: float, what: str) -> None:
    if not least <= low <= high <= most:
        raise DataError(f"{what} lies in {least}..{most}, found {low}..{high}")


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


QRID: dict[str, Degrader] = {
    "noise_low": Noise(10, 50),
    "noise_medium": Noise(50, 150),
    "blur_low": Blur(3, 5),
    "blur_medium": Blur(7, 11),
    "contrast": Contrast(-0.6, -0.3),
    "jpeg_medium": Jpeg(50, 75),
    "jpeg_heavy": Jpeg(20, 45),
}
"""The seven of the paper; `jpeg_medium` is used in calibration only."""
