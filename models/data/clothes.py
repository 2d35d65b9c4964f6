"""Fashion-MNIST as feeds of a classifier: calibration from the training split, tests from t10k.

source:   Debian package `dataset-fashion-mnist` (Expat), through models/train/pictures.py
"""

from __future__ import annotations

import numpy as np

from models.train.pictures import pictures, scaled

SIDE = 28
BATCH = 50
Feed = dict[str, np.ndarray]


def calibration(n: int) -> list[Feed]:
    """n feeds of one training picture each, drawn by seed. Raises DataError without the data."""
    images, _ = pictures("train")
    chosen = np.random.default_rng(0).choice(len(images), n, replace=False)
    return [{"x": scaled(images[i : i + 1]).numpy()} for i in chosen]


def evaluation(n: int) -> list[Feed]:
    """n feeds of one test picture each, the first ones."""
    images, _ = pictures("t10k")
    return [{"x": scaled(images[i : i + 1]).numpy()} for i in range(n)]


def labelled(n: int) -> tuple[list[Feed], list[np.ndarray]]:
    """The first n test pictures in feeds of 50, and the labels i64[50] of each."""
    images, labels = (part[:n] for part in pictures("t10k"))
    feeds = [{"x": scaled(part).numpy()} for part in images.split(BATCH)]
    return feeds, [part.numpy() for part in labels.split(BATCH)]
