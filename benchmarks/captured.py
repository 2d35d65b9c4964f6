"""What capture costs, and how far the captured graph is from the model in its own framework.

python -m benchmarks.captured [--models NAME ...]

Every model in a process of its own. The differences are the largest over the outputs of
max |difference| / max |output|, at the example's sizes and with every free axis longer; torch
modules are compared in torch, ONNX files in ONNX Runtime with its rewriting off.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import ir
import models
import passes
from benchmarks import sources
from benchmarks.cases import CACHE, CASES, GRAPHS
from benchmarks.equal import gap
from benchmarks.peers import Failed, script
from benchmarks.record import Row, keep, machine, show
from benchmarks.workers.protocol import costs
from ir.analysis.blocks import blocks
from ir.analysis.streams import streams
from ir.errors import DataError
from passes.loop import Check

NAMES = tuple(CASES | GRAPHS)
COLUMNS = [
    "model", "from", "free_axes", "nodes", "clean_nodes", "blocks", "streams", "foldable",
    "cpu_s", "delta_mb", "original", "other",
]  # fmt: skip
TITLE = "Capture (of a second one in a process: what the first use loads is not counted)"


def measured(name: str) -> Row:
    """One model, in this process. Raises DataError without its weights."""
    model = sources.module(name)
    models.capture(model)  # what first use loads: exporters, schemas, kernels
    held: list[ir.Graph] = []
    row: Row = costs(lambda: held.append(models.capture(model)))
    graph = held[0]
    row["differences"] = differences(model, graph)
    clean = passes.run(graph, "clean", check=Check.NONE).graph
    kinds = streams(clean)
    return row | {
        "from": "torch.export" if sources.in_torch(model) else "ONNX",
        "free_axes": sum(not isinstance(d, int) for v in graph.graph.inputs for d in v.shape or ()),
        "nodes": sum(1 for _ in ir.graph.nodes(graph)),
        "clean_nodes": sum(1 for _ in ir.graph.nodes(clean)),
        "blocks": sum(block.kind == "residual" for block in blocks(clean)),
        "streams": len(kinds),
        "foldable": sum(bool(stream.maps) for stream in kinds),
    }


def differences(model: ModuleType, graph: ir.Graph) -> list[float]:
    """Of every feed (see `sources.drawn`)."""
    outputs = [str(v.name) for v in graph.graph.outputs]
    with tempfile.TemporaryDirectory() as folder:
        ours = sources.captured(model, graph, Path(folder))
        theirs = sources.source(model)
        feeds = sources.drawn(model, graph)
        return [max(map(gap, theirs(feed), ours(feed), outputs)) for feed in feeds]


def told(row: Row) -> Row:
    texts = [f"{each:.1e}" for each in row.get("differences", [])]
    return row | dict(zip(("original", "other"), [*texts, "fixed"], strict=False))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--here", action="store_true", help="one model in this process, as JSON")
    args = parser.parse_args(arguments)
    if args.here:
        print("\n" + json.dumps(measured(args.models[0])))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.models:
        row: Row = {"model": name}
        try:
            sources.module(name).load()
            row |= script([sys.executable, "-m", "benchmarks.captured", "--here", "--models", name],
                          1800)  # fmt: skip
        except (Failed, DataError) as failure:
            row["failure"] = str(failure)
        rows.append(row | machine())
        keep("captured", rows[-1], ("model",))
    show(TITLE, [told(row) for row in rows], COLUMNS)


if __name__ == "__main__":
    main()
