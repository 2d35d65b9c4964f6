"""Cost against size: CPU seconds of every graph step on decoders of 1k, 10k and 50k nodes.

    python -m benchmarks.scaling [--nodes 1000 10000 50000]

The exponent is the slope of log(seconds) over log(nodes): 1 is linear. Each size runs in a process
of its own, so that none profits from what another has loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx

import ir
import passes
from benchmarks import synthetic
from benchmarks.cases import CACHE
from benchmarks.peers import script
from benchmarks.record import Row, keep, machine, show

T = TypeVar("T")
PIPELINE = "clean | place{w=i8@0x1*f32,a=u8@0*f32+u8,dynamic=true}"


def exponent(nodes: list[int], seconds: list[float]) -> float:
    """Slope of the least-squares line through the points on log-log axes."""
    return float(np.polyfit(np.log(nodes), np.log(seconds), 1)[0])


def timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def costs(nodes: int) -> Row:
    """CPU seconds of capture, verify, show, clean-up and placement of one synthetic decoder."""
    model = synthetic.decoder(round(nodes / synthetic.NODES_PER_LAYER))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        capture, graph = timed(lambda: ir.capture(path))
        verify, _ = timed(lambda: ir.verify(graph))
        text, _ = timed(lambda: ir.show(graph))
        result = passes.run(graph, PIPELINE, check=passes.Check.VERIFY)
    *cleanup, place = result.report.steps
    return {
        "nodes": len(model.graph.node),
        "capture": capture,
        "verify": verify,
        "text": text,
        "clean": sum(step.cpu_seconds for step in cleanup),
        "place": place.cpu_seconds,
        "nodes_after_clean": place.nodes_before,
    }


STEPS = ("capture", "verify", "text", "clean", "place")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10000, 50000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        costs(200)  # what is loaded and compiled on first use does not grow with the graph
        print("\n" + json.dumps(costs(args.one)))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    here = [sys.executable, "-m", "benchmarks.scaling", "--one"]
    rows = [script([*here, nodes], timeout=1800) for nodes in args.nodes]
    sizes = [row["nodes"] for row in rows]
    slopes = {step: exponent(sizes, [row[step] for row in rows]) for step in STEPS}
    for row in rows:
        row["all"] = sum(row[step] for step in STEPS)
        keep("scaling", row | machine(), ("nodes", "vnni"))
    keep("scaling", {"nodes": "exponent", **slopes} | machine(), ("nodes", "vnni"))
    table = [{k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    table.append({"nodes": "exponent", **{step: f"{slopes[step]:.2f}" for step in STEPS}})
    show("CPU seconds by number of nodes", table, ["nodes", *STEPS, "all", "nodes_after_clean"])


if __name__ == "__main__":
    main()
