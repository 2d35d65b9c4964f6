"""What folding every rotation into a model costs, against ten of its forward passes.

    python -m benchmarks.rotations [--models NAME ...] [--tokens 512]

Models are those of the cache (`.bench/cases`), tidied first. Seconds are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from typing import Any

import numpy as np

import backends
import ir
import passes
from backends.torch.executor import using_threads
from benchmarks.cases import CASES, GRAPHS, Case
from benchmarks.peers import Failed, script
from benchmarks.record import Row, keep, machine, show
from ir.graph import Graph, constant
from passes.loop import Check

STEPS = ("fold_norm", "center", "rotate{hadamard=%s}")
COLUMNS = [
    "model", "matrix", "sites", "fold_s", "rotate_s", "forwards_10_s", "share", "largest_mb",
    "extra_mb",
]  # fmt: skip


def tidied(case: Case) -> Graph:
    return passes.run(ir.capture(case.model), "clean", check=Check.NONE).graph


def folded(graph: Graph, hadamard: bool) -> passes.Result:
    pipeline = " | ".join(STEPS) % str(hadamard).lower()
    return passes.run(graph, pipeline, check=Check.NONE, threads=1)


def seconds(graph: Graph, hadamard: bool) -> Row:
    """CPU seconds of the whole pipeline, and of its last step."""
    begun = time.process_time()
    steps = folded(graph, hadamard).report.steps
    whole = time.process_time() - begun
    return {
        "sites": len(steps[-1].sites),
        "fold_s": round(whole, 2),
        "rotate_s": round(steps[-1].cpu_seconds, 2),
    }


def forwards(graph: Graph, tokens: int, times: int = 10) -> float:
    """CPU seconds of so many forward passes in ONNX Runtime, on one thread, after one to warm."""
    feed = _feed(graph, tokens)
    run = backends.build(graph, "ort").session(1).run
    run(feed)
    begun = time.process_time()
    for _ in range(times):
        run(feed)
    return time.process_time() - begun


def memory(graph: Graph, hadamard: bool) -> Row:
    """MB that folding holds at its worst beyond what it leaves, beside the largest weight's."""
    tracemalloc.start()
    try:
        result = folded(graph, hadamard)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    tensors = [constant(v) for v in result.graph.graph.initializers.values()]
    largest = max(t.nbytes for t in tensors if t is not None)
    return {"largest_mb": round(largest / 1e6, 1), "extra_mb": round((peak - left) / 1e6, 1)}


def _feed(graph: Graph, tokens: int) -> dict[str, np.ndarray]:
    """Token numbers, and nothing in the caches: free axes are 1 for the batch, then `tokens`."""
    feed = {}
    for value in graph.graph.inputs:
        names = [d if isinstance(d, int) else str(d) for d in value.shape or ()]
        sizes = {"batch": 1, "past": 0}
        shape = [n if isinstance(n, int) else sizes.get(n, tokens) for n in names]
        kind = value.dtype.numpy() if value.dtype is not None else np.float32
        whole = np.issubdtype(kind, np.integer)
        rng = np.random.default_rng(0)
        numbers = rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)
        feed[str(value.name)] = numbers.astype(kind)
    return feed


def costs(case: Case, hadamard: bool, tokens: int) -> Row:
    with using_threads(1):
        graph = tidied(case)
        row = seconds(graph, hadamard)
        row["forwards_10_s"] = round(forwards(graph, tokens), 2)
        row["share"] = round(row["fold_s"] / row["forwards_10_s"], 3)
        return row | memory(graph, hadamard)


def main(arguments: list[str] | None = None) -> None:
    every = CASES | GRAPHS
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(every), default=["smollm2_off_grid"])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--timeout", type=float, default=1200)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        case = every[args.models[0]]
        print("\n" + json.dumps(costs(case, args.one == "hadamard", args.tokens)))
        return
    rows = []
    for name in args.models:
        for matrix in ("hadamard", "orthogonal"):
            row: Row = {"model": name, "matrix": matrix, "tokens": args.tokens}
            own: list[Any] = [sys.executable, "-m", "benchmarks.rotations", "--one", matrix]
            try:
                row |= script([*own, "--models", name, "--tokens", args.tokens], args.timeout)
            except Failed as failure:
                row["failure"] = str(failure)
            rows.append(row | machine())
            keep("rotations", rows[-1], ("model", "matrix", "tokens"))
    show("Folding all rotations, in CPU seconds of one thread", rows, COLUMNS)


if __name__ == "__main__":
    main()
