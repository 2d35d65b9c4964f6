"""Quantize an ONNX model, build it for ONNX Runtime, save it, load it elsewhere and run it.

python -m examples.deploy model.onnx calibration.npz model-int8
"""

from __future__ import annotations

import sys

import backends
import ir
import passes
from calib import data, metrics


def main(model: str, calibration: str, output: str) -> dict[str, float]:
    """SQNR in dB of every output of the artifact, as ONNX Runtime executes it."""
    graph = ir.capture(model)
    batches = data.load(calibration, graph, batch_size=8, limit=64)

    pipeline = passes.Pipeline.parse("w8a8{clip=entropy,keep=[last]}")
    result = passes.run(graph, pipeline, data=batches)
    for step in result.report.steps:
        print(f"{step.step}: {len(step.sites)} sites, {len(step.skips)} skipped")
    backends.build(result, "ort").save(output)

    # Whoever deploys needs the folder only.
    artifact = backends.load(output)
    wanted = backends.target("ort").open(model, threads=1)
    totals = {name: metrics.Difference() for name in wanted.outputs}
    for feeds in batches:
        found = artifact.run(feeds, threads=1)
        for name, expected in wanted.run(feeds).items():
            totals[name].add(expected, found[name])
    return {name: total.result().sqnr_db for name, total in totals.items()}


if __name__ == "__main__":
    for name, db in main(*sys.argv[1:4]).items():
        print(f"{name}: {db:.1f} dB")
