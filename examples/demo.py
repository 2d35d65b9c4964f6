"""`make demo`: a real image classifier and a real sentence encoder, quantized on real data.

Every figure is of the artifact as ONNX Runtime executes it, on data that calibration did not see.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.console import Console

import backends
import ir
import passes
from backends.ort.bench import latency
from calib import metrics
from ir.errors import PtqcError
from passes.command import tables
from passes.command.screen import Screen

Feeds = dict[str, np.ndarray]
Task = Callable[[list[Feeds], list[np.ndarray], list[np.ndarray]], str]


@dataclass(frozen=True)
class Row:
    """One line of the closing table."""

    model: str
    recipe: str
    sqnr_db: float
    cosine: float
    task: str
    float_bytes: int
    file_bytes: int
    ratio: float
    seconds: float


def same_class(feeds: list[Feeds], wanted: list[np.ndarray], found: list[np.ndarray]) -> str:
    """How often the most likely class is the float model's."""
    pairs = zip(wanted, found, strict=True)
    same = np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in pairs])
    return f"same top-1 class for {same.sum()} of {same.size} photographs"


def same_similarity(feeds: list[Feeds], wanted: list[np.ndarray], found: list[np.ndarray]) -> str:
    """How the similarities of all pairs of sentences correlate with the float model's."""
    from models import minilm

    def similarities(hidden: list[np.ndarray]) -> np.ndarray:
        masks = [batch["attention_mask"] for batch in feeds]
        vectors = np.concatenate([minilm.embed(h, m) for h, m in zip(hidden, masks, strict=True)])
        return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]

    correlation = np.corrcoef(similarities(wanted), similarities(found))[0, 1]
    return f"correlation of sentence similarities {correlation:.4f}"


def quantize(
    model: ModuleType, name: str, recipe: str, task: Task, samples: tuple[int, int], folder: Path
) -> Row:
    """Capture, run the recipe on `samples[0]` feeds, build, save, load, measure on `samples[1]`."""
    dynamic = {
        key: dict.fromkeys(axes, torch.export.Dim.AUTO) for key, axes in model.DYNAMIC.items()
    }
    example = tuple(torch.cat([x, x]) for x in model.example())  # torch takes a size of 1 as fixed
    graph = ir.capture(model.load(), example, dynamic=dynamic)
    before = ir.save(graph, folder / f"{name}.onnx")
    begun = time.perf_counter()
    result = passes.run(graph, recipe, data=model.calibration(samples[0]))
    backends.build(result, "ort").save(folder / f"{name}-{recipe}")
    seconds = time.perf_counter() - begun

    feeds = model.evaluation(samples[1])
    artifact = backends.load(folder / f"{name}-{recipe}")
    reference = backends.target("ort").open(before, threads=1)
    wanted, found = (
        [next(iter(session.run(batch).values())) for batch in feeds]
        for session in (reference, artifact.session(1))
    )
    total = metrics.Difference()
    for a, b in zip(wanted, found, strict=True):
        total.add(a, b)
    error = total.result()
    timed = latency([reference, artifact.session(1)], feeds[0], repeats=11)
    return Row(
        name, recipe, error.sqnr_db, error.cosine, task(feeds, wanted, found),
        before.stat().st_size, artifact.manifest.sizes["model"], timed.ratios[1], seconds,
    )  # fmt: skip


def table(rows: list[Row]):
    columns = (
        "model", "recipe", ">SQNR", ">cosine", "task", ">float", ">file", ">latency ratio",
        ">quantized in",
    )  # fmt: skip
    cells = [
        (
            row.model, row.recipe, tables.decibels(row.sqnr_db), f"{row.cosine:.4f}", row.task,
            tables.size(row.float_bytes), tables.size(row.file_bytes), f"{row.ratio:.2f}",
            tables.seconds(row.seconds),
        )
        for row in rows
    ]  # fmt: skip
    note = "executed by ONNX Runtime on one thread, on data that calibration did not see"
    return tables.table("ptqc", columns, cells, note)


def main() -> int:
    """Exit status as of the command."""
    screen, rows = Screen(), []
    torch.set_num_threads(1)
    try:
        from models import efficientnet_lite0, minilm

        with tempfile.TemporaryDirectory() as name, screen.working("demo") as bar:
            jobs = [
                (efficientnet_lite0, "EfficientNet-Lite0", "w8a8", same_class, (48, 64)),
                (minilm, "MiniLM-L6", "w8a8_smooth", same_similarity, (16, 16)),
                (minilm, "MiniLM-L6", "w8a8_dynamic", same_similarity, (16, 16)),
            ]
            for model, title, recipe, task, samples in jobs:
                screen.say(f"{title}: {recipe} on real data ...")
                bar.step(f"{title} {recipe}")
                rows.append(quantize(model, title, recipe, task, samples, Path(name)))
    except ImportError as error:
        screen.say(f"ptqc: error: the demo needs {error.name}; run: make demo")
        return 3
    except PtqcError as error:
        screen.say(f"ptqc: error: {error}")
        return error.exit_code
    Console(width=None if sys.stdout.isatty() else 150).print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
