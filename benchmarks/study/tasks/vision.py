"""Classifiers: labelled pictures of clothes, and photographs where the float model is the judge."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from PIL import Image

from benchmarks.study.tasks.base import Feed, Runs, Score, Task, compared, degraded, partly
from calib.metrics.classification import Classification
from models.data import clothes
from models.data.photographs import CALIBRATION, EVALUATION, crops


class Clothes(Task):
    """Fashion-MNIST test pictures with their labels."""

    figure: ClassVar[str] = "top-1"

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        self.clean_only(condition)
        feeds, labels = clothes.labelled(n)
        sqnr, pairs = compared(runs[""], reference[""], feeds)
        total = Classification()
        for wanted, (expected, found) in zip(labels, pairs, strict=True):
            total.add(wanted, found, expected)
        scores = total.result()
        more = {"top-5": scores.top5.rate}
        more |= {"agreement": scores.agreement.rate} if scores.agreement else {}
        return Score(scores.top1.rate, scores.top1.low, scores.top1.high, sqnr, more)


class Photographs(Task):
    """Crops of photographs: what the float model says of the clean picture counts as right."""

    figure: ClassVar[str] = "agreement"

    def calibration(self, part: str, n: int, seed: int, mixed: float) -> list[Feed]:
        return self._feeds(partly(_pictures(CALIBRATION, n, seed), mixed, seed))

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        pictures = _pictures(EVALUATION, n, 1)
        feeds = self._feeds(degraded(pictures, condition, seed))
        sqnr, pairs = compared(runs[""], reference[""], feeds)
        total = Classification()
        for feed, (_, found) in zip(self._feeds(pictures), pairs, strict=True):
            (clean,) = reference[""](feed).values()
            total.add(clean.argmax(1), found)
        top1 = total.result().top1
        return Score(top1.rate, top1.low, top1.high, sqnr)

    def _feeds(self, pictures: list[np.ndarray]) -> list[Feed]:
        (name,) = self.module.DYNAMIC
        return [{name: self.module.preprocess(Image.fromarray(each))} for each in pictures]


def _pictures(names: dict, n: int, seed: int) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGB")) for image in crops(list(names), n, (224, 224), seed)]
