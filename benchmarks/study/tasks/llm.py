"""Language models: perplexity of WikiText-2, and how far the next-token distributions move."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.study.tasks.base import Runs, Score, Task
from calib.metrics import Difference
from calib.metrics.logits import Logits
from calib.metrics.perplexity import Perplexity, windows
from models import smollm2

WINDOW = 512
"""Tokens of a window; the stride is the same, and nothing is put before the first token."""


class Perplexities(Task):
    """A sample is a window of 512 tokens."""

    figure: ClassVar[str] = "perplexity"
    higher: ClassVar[bool] = False

    @property
    def binding(self) -> dict[str, dict[str, int]]:
        return {"": {"batch": 1, "tokens": 1, "past": WINDOW}}

    def score(self, runs: Runs, reference: Runs, n: int, condition: str, seed: int) -> Score:
        self.clean_only(condition)
        figure, shift, total = Perplexity(seed=seed), Logits(), Difference()
        for window in windows(smollm2.wikitext_tokens()[: n * WINDOW], WINDOW):
            feed = smollm2.prefill(window.ids)
            wanted, found = (run(feed)["logits"] for run in (reference[""], runs[""]))
            figure.add(window.scored(found[0]), window.targets)
            shift.add(window.scored(wanted[0]), window.scored(found[0]))
            total.add(wanted, found)
        result, moved = figure.result(), shift.result()
        more = {"KL, nats": moved.kl, "top-1 agreement": moved.top_1}
        return Score(result.perplexity, result.low, result.high, total.result().sqnr_db, more)
