"""`make demo`: an image classifier and a sentence encoder, real weights, real data, in 8 bits.

Each is captured from torch, quantized by a recipe, saved, and then executed in ONNX Runtime beside
the float model. The artifacts stay in build/demo.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

import backends
import models
import passes
from benchmarks.measure import measure, model_file, size
from models import efficientnet_lite0, minilm

OUT = Path("build") / "demo"
RECIPE = "w8a8"


def quantize(model: ModuleType, samples: int, **yardstick: Any) -> dict[str, Any]:
    """Quantizes one model; returns what is measured on data that calibration has not seen."""
    name = model.__name__.rpartition(".")[2]
    started = time.perf_counter()
    graph = models.capture(model)
    result = passes.run(graph, RECIPE, data=model.calibration(samples))
    quantized = backends.build(result, "ort").save(OUT / f"{name}-{RECIPE}")
    seconds = time.perf_counter() - started
    float_ = backends.build(graph, "ort").save(OUT / f"{name}-float")
    files = model_file(float_), model_file(quantized)
    row = measure(*files, model.evaluation(samples), **yardstick)
    megabytes = [f"{size(file) / 1e6:.1f}" for file in files]
    return row | {"model": name, "seconds": seconds, "size": " -> ".join(megabytes)}


def sentence_similarities() -> list[tuple[str, float, float]]:
    """Cosines of sentence pairs by the float encoder and by the quantized one."""
    pairs = [
        ("A man is eating food.", "Someone has a meal."),
        ("A man is eating food.", "The stock market fell sharply."),
    ]
    feeds = minilm.tokenize([text for pair in pairs for text in pair])
    found = []
    for kind in ("float", RECIPE):
        (hidden,) = backends.load(OUT / f"minilm-{kind}").run(feeds).values()
        vectors = minilm.embed(hidden, feeds["attention_mask"])
        found.append([float(vectors[i] @ vectors[i + 1]) for i in (0, 2)])
    return [(f"{a} / {b}", *cosines) for (a, b), *cosines in zip(pairs, *found, strict=True)]


def main() -> None:
    console = Console() if Console().is_terminal else Console(width=100)
    OUT.mkdir(parents=True, exist_ok=True)
    table = Table(title=f"{RECIPE}, executed in ONNX Runtime on one thread", title_justify="left")
    for column in ("model", "SQNR dB", "cosine", "same top-1", "MB", "latency ratio", "seconds"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    with console.status("quantizing"):
        rows = [
            quantize(efficientnet_lite0, 32, metric="agreement"),
            quantize(minilm, 24, mask="attention_mask"),
        ]
    for row in rows:
        same = f"{row['agreement']:.0%}" if "agreement" in row else ""
        cells = [row["model"], row["sqnr_db"], row["cosine"], same, row["size"]]
        cells += [row["latency_ratio"], f"{row['seconds']:.1f}"]
        table.add_row(*map(str, cells))
    console.print(table)
    for pair, before, after in sentence_similarities():
        console.print(f"{pair}  cosine {before:.3f} float, {after:.3f} {RECIPE}", highlight=False)
    console.print(f"artifacts: {OUT}")


if __name__ == "__main__":
    main()
