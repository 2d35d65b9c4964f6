"""Natural photographs from the wheels of scikit-image and scikit-learn, as seeded crops.

Sources and licences: the README.txt beside each image folder (public domain, CC0 or CC-BY).
Calibration and evaluation come from different photographs.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from models.weights.packages import package_file

SKIMAGE = ("scikit-image", "0.26.0", "skimage/data/")
SKLEARN = ("scikit-learn", "1.9.1", "sklearn/datasets/images/")

CALIBRATION = {
    "coffee.png": (SKIMAGE, "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
    "rocket.jpg": (SKIMAGE, "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    "motorcycle_left.png": (
        SKIMAGE,
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    "ihc.png": (SKIMAGE, "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef"),
    "gravel.png": (SKIMAGE, "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
    "china.jpg": (SKLEARN, "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
}
EVALUATION = {
    "astronaut.png": (SKIMAGE, "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
    "chelsea.png": (SKIMAGE, "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
    "hubble_deep_field.jpg": (
        SKIMAGE,
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    "flower.jpg": (SKLEARN, "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
}


@cache
def photograph(name: str) -> Image.Image:
    """One photograph in full, RGB."""
    (distribution, version, folder), sha256 = (CALIBRATION | EVALUATION)[name]
    file = package_file(distribution, version, folder + name, sha256)
    with Image.open(file) as image:
        return image.convert("RGB")


def crops(names: list[str], n: int, size: tuple[int, int], seed: int) -> list[Image.Image]:
    """n images of `size` (width, height): crops of 30 to 100 % of a photograph's area.

    The photographs take turns; place, extent and left-right flip are drawn from `seed`.
    """
    rng = np.random.default_rng(seed)
    return [_crop(photograph(names[i % len(names)]), size, rng) for i in range(n)]


def _crop(image: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    aspect = size[0] / size[1]
    width = min(image.width, image.height * aspect) * np.sqrt(rng.uniform(0.3, 1.0))
    height = width / aspect
    left = rng.uniform(0, image.width - width)
    top = rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    crop = image.resize(size, Image.Resampling.BICUBIC, box=box)
    flip = rng.random() < 0.5
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop
