"""Text detection: lines rendered on photographs, whose boxes are known."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.study.tasks.base import Feed, Runs, Score, Task, compared, degraded, partly
from calib.metrics.detection import Detection

THRESHOLD = 0.3
"""Probability from which on a pixel is text."""
GROWN = 1.5
"""DBNet marks lines shrunk by A (1 - r^2) / L, r = 0.4; they grow back by 1.5 A / L."""
LEAST = 16
"""Pixels of the smallest region that counts."""


class Lines(Task):
    """F1 of the boxes at an overlap of one half."""

    figure: ClassVar[str] = "F1"

    def calibration(self, part: str, n: int, seed: int, mixed: float) -> list[Feed]:
        return self._feeds(partly(self._pictures(n, 0), mixed, seed))

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        feeds = self._feeds(degraded(self._pictures(n, 1), condition, seed))
        sqnr, pairs = compared(runs[""], reference[""], feeds)
        total = Detection(seed=seed)
        for (_, wanted), (_, found) in zip(self.module.labelled(n), pairs, strict=True):
            total.add(np.array(wanted, np.float32).reshape(-1, 4), boxes(found[0, 0]))
        result = total.result()
        more = {"precision": result.precision, "recall": result.recall}
        return Score(result.f1, result.low, result.high, sqnr, more)

    def _pictures(self, n: int, part: int) -> list[np.ndarray]:
        return [np.asarray(image.convert("RGB")) for image, _ in self.module.images(n, part)]

    def _feeds(self, pictures: list[np.ndarray]) -> list[Feed]:
        return [{"x": self.module.preprocess(Image.fromarray(each))} for each in pictures]


def boxes(probability: np.ndarray) -> np.ndarray:
    """f32[n, 4] upright boxes (left, top, right, bottom) of the regions of f32[height, width].

    source: the box formation of DBNet, arXiv:1911.08947, section 3.3, for upright text
    """
    regions, _ = ndimage.label(probability > THRESHOLD)  # pyright: ignore[reportGeneralTypeIssues]
    found = []
    for number, place in enumerate(ndimage.find_objects(regions), 1):
        if place is None or np.count_nonzero(regions[place] == number) < LEAST:
            continue
        top, bottom = place[0].start, place[0].stop
        left, right = place[1].start, place[1].stop
        width, height = right - left, bottom - top
        grow = GROWN * width * height / (2 * (width + height))
        found.append((left - grow, top - grow, right + grow, bottom + grow))
    return np.array(found, np.float32).reshape(-1, 4)
