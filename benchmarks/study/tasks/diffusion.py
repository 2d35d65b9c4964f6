"""Generators: pictures drawn in many steps from the same noise, and maps made in one."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np

from benchmarks.study.tasks.base import EXACT, Runs, Score, Task, compared
from calib.metrics.images import ClassAccuracy, Gaussian, Likeness, frechet, mean_slope
from models import samplers
from models.data import clothes

SEED = 11
TEST_PICTURES = 10_000


class Pictures(Task):
    """Whole samplings of the diffusion transformer, against the float model's from equal noise."""

    figure: ClassVar[str] = "PSNR, dB"

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        from models.judge import judge

        self.clean_only(condition)
        velocities = [samplers.of_graph(run) for run in (reference[""], runs[""])]
        (wanted, labels), (found, _) = (self.module.sample(v, n, SEED + seed) for v in velocities)
        likeness = Likeness(range=2.0)
        likeness.add(wanted, found)
        features, classes = judge(found)
        accuracy = ClassAccuracy()
        accuracy.add(labels, classes)
        more = {"SSIM": likeness.result().ssim, "class accuracy": accuracy.result()}
        more |= {
            "Frechet to float": frechet(_gaussian(judge(wanted)[0]), _gaussian(features)),
            "Frechet to pictures": frechet(_pictures(), _gaussian(features)),
        }
        sqnr, _ = compared(runs[""], reference[""], self.module.evaluation(20))
        return Score(min(likeness.result().psnr_db, EXACT), sqnr_db=sqnr, more=more)


class Maps(Task):
    """Height maps of the one-step U-Net, in -1..1, against the float model's from equal noise."""

    figure: ClassVar[str] = "PSNR, dB"

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        self.clean_only(condition)
        sqnr, pairs = compared(runs[""], reference[""], self.module.evaluation(n))
        likeness = Likeness(range=2.0)
        for wanted, found in pairs:
            likeness.add(wanted, found)
        slopes = [mean_slope(np.concatenate(maps)) for maps in zip(*pairs, strict=True)]
        more = {"SSIM": likeness.result().ssim, "slope of float": slopes[1] / slopes[0]}
        return Score(min(likeness.result().psnr_db, EXACT), sqnr_db=sqnr, more=more)


@cache
def _pictures() -> Gaussian:
    """Of all test pictures of Fashion-MNIST."""
    from models.judge import judge

    feeds, _ = clothes.labelled(TEST_PICTURES)
    return _gaussian(judge(np.concatenate([feed["x"] for feed in feeds]))[0])


def _gaussian(features: np.ndarray) -> Gaussian:
    found = Gaussian()
    found.add(features)
    return found
