"""The models that studies may name: which task scores them, and on how many samples."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from benchmarks.study.tasks.base import Task


@dataclass(frozen=True)
class Entry:
    """task: `module:class` under benchmarks/study/tasks, called with the model's name."""

    domain: str
    task: str
    small: int
    full: int
    calibration: int

    @property
    def samples(self) -> Mapping[str, int]:
        return {"small": self.small, "full": self.full}


MODELS = {
    "efficientnet_lite0": Entry("vision", "vision:Photographs", 32, 256, 32),
    "fashion_cnn": Entry("vision", "vision:Clothes", 1000, 10_000, 100),
    "fashion_vit": Entry("vision", "vision:Clothes", 1000, 10_000, 100),
    "ppocr_det": Entry("vision", "detection:Lines", 16, 64, 16),
    "whisper": Entry("speech", "speech:Transcripts", 10, 10, 8),
    "dit": Entry("diffusion", "diffusion:Pictures", 50, 500, 40),
    "terrain_unet": Entry("diffusion", "diffusion:Maps", 8, 32, 8),
    "minilm": Entry("text", "text:Sentences", 12, 48, 24),
    "smollm2_off_grid": Entry("llm", "llm:Perplexities", 4, 16, 8),
}
DOMAINS = tuple(dict.fromkeys(entry.domain for entry in MODELS.values()))


@cache
def task(model: str) -> Task:
    """The task of a model, made once. Raises DataError without its packages or data."""
    module, name = MODELS[model].task.split(":")
    made = getattr(importlib.import_module(f"benchmarks.study.tasks.{module}"), name)
    return made(model)
