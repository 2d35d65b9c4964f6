"""Sentence encoders: how far the sentence vectors turn."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from benchmarks.study.tasks.base import Runs, Score, Task
from calib.metrics import Difference

DRAWS = 2000


class Sentences(Task):
    """Mean cosine between the vectors of float and quantized model, over sentences."""

    figure: ClassVar[str] = "cosine"

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        self.clean_only(condition)
        total, found = Difference(), []
        for feed in self.module.evaluation(n):
            mask = feed["attention_mask"]
            (a,), (b,) = (run(feed).values() for run in (reference[""], runs[""]))
            total.add(a[mask != 0], b[mask != 0])
            found.append((self.module.embed(a, mask) * self.module.embed(b, mask)).sum(1))
        cosines = np.concatenate(found)
        drawn = np.random.default_rng(seed).integers(len(cosines), size=(DRAWS, len(cosines)))
        low, high = np.quantile(cosines[drawn].mean(1), [0.025, 0.975])
        mean = float(cosines.mean())
        more = {"lowest cosine": float(cosines.min())}
        return Score(mean, float(low), float(high), total.result().sqnr_db, more)
