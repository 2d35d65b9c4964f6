"""Memory of calibration against the number of samples: it must not grow.

python -m benchmarks.memory [--samples 10 1000]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

import numpy as np

import ir
import passes
from benchmarks import synthetic
from benchmarks.cases import CACHE
from benchmarks.feeds import Feed
from benchmarks.peers import script
from benchmarks.record import keep, machine, show
from benchmarks.workers.protocol import memory_mb

PIPELINE = "clean | collect{[histogram moments]}"
LENGTH = 512
"""Tokens of a sample: 1,000 samples of their inputs alone would be 30 MB, of all values 6 GB."""


class Samples:
    """Re-iterable feeds that are made when asked for, so that the data itself holds no memory."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Feed]:
        mask = np.triu(np.full((LENGTH, LENGTH), np.finfo(np.float32).min), 1)
        for seed in range(self.count):
            rng = np.random.default_rng(seed)
            yield {"x": rng.standard_normal((1, LENGTH, synthetic.WIDTH), np.float32), "mask": mask}


def costs(samples: int) -> dict[str, float]:
    graph = ir.capture(synthetic.decoder(2))
    passes.run(graph, PIPELINE, data=Samples(2), check=passes.Check.NONE)  # what first use loads
    before = memory_mb("VmRSS")
    passes.run(graph, PIPELINE, data=Samples(samples), check=passes.Check.NONE)
    peak = memory_mb("VmHWM")
    return {"samples": samples, "peak_mb": round(peak, 1), "delta_mb": round(peak - before, 1)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        print("\n" + json.dumps(costs(args.one)))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    here = [sys.executable, "-m", "benchmarks.memory", "--one"]
    rows = [script([*here, samples], timeout=1800) for samples in args.samples]
    for row in rows:
        keep("memory", row | machine(), ("samples", "vnni"))
    show("Memory of calibration, MB", rows, ["samples", "peak_mb", "delta_mb"])


if __name__ == "__main__":
    main()
