"""Measure latency: an artifact or a model, alone or against a float model, run in turn.

The figures are medians of the CPU time of one run; the models take turns, so that a busy machine
slows all alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import add_data, positive, read_model
from .screen import Screen

EXAMPLE = "  ptqc bench model-int8 --against model.onnx"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="ARTIFACT|MODEL",
        help="a folder that ptqc quantize wrote, or an .onnx file",
    )
    parser.add_argument("--against", metavar="FLOAT", help="the float model, an .onnx file")
    add_data(parser, "--data", "what to run on, the first batch of it; without it, random inputs")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of the runtime")
    parser.add_argument(
        "--repeats", type=positive, default=21, metavar="N", help="measurements of each model"
    )


def stopped(args: argparse.Namespace) -> str:
    return "nothing was written"


def run(args: argparse.Namespace, screen: Screen) -> Any:
    import backends
    from backends.ort.bench import latency
    from calib import data

    from .compare import model_file
    from .measure import model_bytes

    files = (
        [model_file(args.model)]
        if args.against is None
        else [Path(args.against), model_file(args.model)]
    )
    graph: Any = read_model(str(files[0]), screen)
    feeds = (
        data.synthetic(graph, 1)[0]
        if args.data is None
        else next(
            iter(data.load(args.data, graph, batch_size=args.batch, preprocess=args.preprocess))
        )
    )
    target = backends.target("ort")
    with screen.working("running"):
        timed = latency(
            [target.open(file, threads=args.threads) for file in files], feeds, args.repeats
        )
    names = [args.against, args.model][-len(files) :]
    found = {
        "inputs": {name: list(array.shape) for name, array in feeds.items()},
        "data": args.data or "random inputs",
        "threads": args.threads,
        "models": [
            {"model": name, "bytes": model_bytes(file), "ms": ms, "ratio": ratio}
            for name, file, ms, ratio in zip(
                names, files, timed.milliseconds, timed.ratios, strict=True
            )
        ],
    }
    screen.show(_table(found))
    return found


def _table(found: dict[str, Any]) -> Any:
    from .tables import size, table

    shapes = ", ".join(f"{name}{shape}" for name, shape in found["inputs"].items())
    rows = [
        (row["model"], size(row["bytes"]), f"{row['ms']:.3g} ms", f"{row['ratio']:.2f}")
        for row in found["models"]
    ]
    note = f"CPU time of one run on {shapes}, {found['threads']} thread(s), {found['data']}"
    return table("", ("model", ">file", ">median", ">ratio"), rows, note)
