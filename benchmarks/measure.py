"""How close, how fast and how small a quantized model is, executed in ONNX Runtime.

    python -m benchmarks.measure FLOAT QUANTIZED TEST.npz [--metric NAME] [--no-latency]

Every quantizer is measured by this one script, in a process of its own, so that a crash of the
runtime is a result and not the end of the benchmark. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks import metrics
from benchmarks.feeds import Feed, load

ROUNDS = (7, 41)
"""Fewest and most interleaved rounds; between them as many as fit into BUDGET CPU seconds."""
BUDGET = 8.0
SLICE = 0.02
"""CPU seconds that one timing lasts at least, by repeating the run."""


def session(path: Path, optimise: bool = True) -> ort.InferenceSession:
    """One thread, no spinning, and the session settings that an artifact's manifest asks for."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(runner: ort.InferenceSession, feeds: list[Feed]) -> list[list[np.ndarray]]:
    return [[np.asarray(out) for out in runner.run(None, feed)] for feed in feeds]


def latency_ratio(
    quantized: ort.InferenceSession, float_: ort.InferenceSession, feed: Feed
) -> tuple[float, float]:
    """Median over interleaved rounds of CPU time, quantized / float; and the float's milliseconds.

    A round times both, one after the other, so that a busy machine slows both alike.
    """
    _timed(float_, feed, 1)  # the first run allocates
    once = _timed(float_, feed, 1)
    repeats = max(1, round(SLICE / once))
    per_round = 2 * max(once, SLICE)
    rounds = int(np.clip(BUDGET / per_round, *ROUNDS))
    _timed(quantized, feed, 1)
    pairs = [(_timed(quantized, feed, repeats), _timed(float_, feed, repeats))
             for _ in range(rounds)]  # fmt: skip
    ratio = statistics.median(q / f for q, f in pairs)
    return ratio, 1e3 * statistics.median(f for _, f in pairs)


def _timed(runner: ort.InferenceSession, feed: Feed, repeats: int) -> float:
    """CPU seconds of one run (of this process: ORT computes in the calling thread)."""
    start = time.process_time()
    for _ in range(max(1, repeats)):
        runner.run(None, feed)
    return (time.process_time() - start) / max(1, repeats)


def model_file(path: Path) -> Path:
    """The ONNX file of `path`: itself, or that of an artifact's folder."""
    return path / "model.onnx" if path.is_dir() else path


def size(path: Path) -> int:
    """Bytes of a model with its external data: of the file and of those that it names."""
    model = onnx.load(path, load_external_data=False)
    tensors = [t for t in model.graph.initializer if t.external_data]
    places = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return path.stat().st_size + sum((path.parent / place).stat().st_size for place in places)


def measure(
    float_path: Path,
    path: Path,
    feeds: list[Feed],
    metric: str | None = None,
    mask: str | None = None,
    latency: bool = True,
) -> dict[str, object]:
    model = onnx.load(path, load_external_data=False)
    float_session, quantized = session(float_path), session(path)
    labels = [feed.pop("labels", None) for feed in feeds]
    expected, found = outputs(float_session, feeds), outputs(quantized, feeds)
    if mask:
        keep = [feed[mask] != 0 for feed in feeds]
        expected, found = metrics.at(expected, keep), metrics.at(found, keep)
    row: dict[str, object] = {
        "sqnr_db": round(metrics.sqnr_db(expected, found), 2),
        "cosine": round(metrics.cosine(expected, found), 5),
        "size_ratio": round(size(path) / size(float_path), 3),
        "nodes": len(model.graph.node),
    }
    if metric:
        task = metrics.TASK[metric]
        row[metric] = round(task(expected, found, labels), 4)
        row[f"{metric}_float"] = round(task(expected, expected, labels), 4)
    if latency:
        ratio, milliseconds = latency_ratio(quantized, float_session, feeds[0])
        row |= {"latency_ratio": round(ratio, 3), "float_ms": round(milliseconds, 3)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("float", type=Path)
    parser.add_argument("quantized", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--metric", choices=list(metrics.TASK))
    parser.add_argument("--mask", help="an input: outputs count only where it is not zero")
    parser.add_argument("--feeds", type=int, help="use only so many of the test feeds")
    parser.add_argument("--no-latency", action="store_true")
    args = parser.parse_args()
    feeds = load(args.test)[: args.feeds]
    float_, quantized = model_file(args.float), model_file(args.quantized)
    row = measure(float_, quantized, feeds, args.metric, args.mask, not args.no_latency)
    print("\n" + json.dumps(row))


if __name__ == "__main__":
    main()
