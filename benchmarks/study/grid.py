"""Which cells a study has: read from studies.toml, checked before any work."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.catalogue import MODELS
from ir.errors import DataError, PtqcError
from passes.pipeline import Pipeline

FILE = Path(__file__).with_name("studies.toml")
FLOAT = "float"
"""The recipe that leaves a model as it is: the figure beside all others."""


@dataclass(frozen=True)
class Cell:
    """One measurement. recipe: its name in the study; pipeline: its text, empty for float; parts:
    of the model's graphs those that are quantized; mixed: share of the calibration samples that
    are degraded; condition: what is done to the test inputs; samples: of the test."""

    study: str
    model: str
    recipe: str
    pipeline: str
    parts: tuple[str, ...]
    mixed: float
    condition: str
    seed: int
    samples: int

    def key(self) -> dict[str, Any]:
        """What tells its row from all others, as JSON holds it."""
        return asdict(self) | {"parts": list(self.parts)}


@dataclass(frozen=True)
class Study:
    """One table of studies.toml."""

    name: str
    why: str
    models: tuple[str, ...]
    recipes: Mapping[str, str]
    source: str = ""
    parts: tuple[tuple[str, ...], ...] = ((),)
    """Sets of graphs to quantize; an empty one means all."""
    mixed: tuple[float, ...] = (0.0,)
    conditions: tuple[str, ...] = ("clean",)
    seeds: tuple[int, ...] = (0,)

    def cells(self, size: str, models: Sequence[str] = ()) -> Iterator[Cell]:
        """The cells at the sample counts `size` (small or full), float first, model by model."""
        for model in self.models:
            if models and model not in models:
                continue
            samples = MODELS[model].samples[size]
            for condition in self.conditions:
                yield Cell(self.name, model, FLOAT, "", (), 0.0, condition, 0, samples)
            for recipe, parts, mixed, seed, condition in itertools.product(
                self.recipes, self.parts, self.mixed, self.seeds, self.conditions
            ):
                if mixed and not reads_data(self.recipes[recipe]):
                    continue
                yield Cell(
                    self.name, model, recipe, self.recipes[recipe], parts, mixed, condition, seed,
                    samples,
                )  # fmt: skip


def reads_data(pipeline: str) -> bool:
    """Whether the pipeline has a step that walks the data; without one it is not calibrated."""
    reading = (
        "collect", "spare", "adaround", "gptq", "learn_clip", "learn_scales", "learn_rotation",
        "adapt_rotation", "smooth", "smooth_model", "scale_salient", "shift", "suppress", "reparam",
        "split_channels", "merge_channels", "unclip",
    )  # fmt: skip
    return any(step.name in reading for step in Pipeline.parse(pipeline))


def read(path: Path = FILE) -> dict[str, Study]:
    """The studies by name. Raises DataError naming the table that is wrong."""
    return {name: _study(name, row) for name, row in tomllib.loads(path.read_text()).items()}


def prepared(recipes: Mapping[str, str], ways: Mapping[str, str]) -> dict[str, str]:
    """The recipes, and each of them again behind every way of preparing the model: a pipeline that
    keeps its function, so that the float figure stands beside both."""
    found = dict(recipes)
    for way, pipeline in ways.items():
        found |= {f"{name} ({way})": f"{pipeline} | {text}" for name, text in recipes.items()}
    return found


def _study(name: str, row: Mapping[str, Any]) -> Study:
    unknown = set(row.get("models", ())) - set(MODELS)
    if unknown or not row.get("models"):
        known = ", ".join(MODELS)
        what = f"names {', '.join(sorted(unknown)) or 'no models'}"
        raise DataError(f"study '{name}' {what}", hint=f"there are {known}")
    recipes = prepared(row.get("recipes", {}), row.get("prepare", {}))
    for recipe, text in recipes.items():
        try:
            Pipeline.parse(text)
        except PtqcError as error:
            raise DataError(f"study '{name}', recipe '{recipe}': {error.cause}") from error
    try:
        lists = {key: tuple(row[key]) for key in ("mixed", "conditions", "seeds") if key in row}
        parts = tuple(tuple(part) for part in row.get("parts", ((),)))
        return Study(
            name, row["why"], tuple(row["models"]), recipes, row.get("source", ""), parts, **lists,
        )  # fmt: skip
    except KeyError as error:
        raise DataError(f"study '{name}' lacks {error}") from error
