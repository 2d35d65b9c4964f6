"""Quality, latency, size and cost of W8A8: ptqc beside its peers, on the same data, in one run.

python -m benchmarks.w8a8 [--models NAME ...] [--peers NAME ...] [--no-latency]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import CACHE, CASES, GRAPHS, Case, prepare
from benchmarks.peers import PEERS, Failed, Peer, quantize, script
from benchmarks.record import Row, keep, machine, show
from ir.errors import DataError

COLUMNS = [
    "model", "peer", "config", "sqnr_db", "cosine", "task", "latency_ratio", "size_ratio",
    "nodes", "cpu_s", "peak_mb", "delta_mb",
]  # fmt: skip
KEYS = ("model", "peer", "config", "vnni")
CLEANUPS = {
    "simplify",
    "slim",
    "basic",
    "clean",
    "clean_unchecked",
}  # configurations that do not quantize: see cleanup.py


def run(case: Case, peer: Peer, config: str, latency: bool, timeout: float) -> Row:
    """Quantizes and measures once; what fails becomes the row's `failure`."""
    out = CACHE / "out" / case.name / f"{peer.name}-{config}.onnx"
    out.parent.mkdir(parents=True, exist_ok=True)
    row: Row = {"model": case.name, "peer": peer.name, "config": config}
    row |= {"calibration": case.calibration, "test": case.test}
    try:
        row |= quantize(peer, config, case, out, timeout)
        row |= measured(case, out, latency, timeout)
    except Failed as failure:
        row["failure"] = str(failure).replace(str(CACHE), ".bench")
    return row | machine()


def measured(case: Case, out: Path, latency: bool, timeout: float) -> dict[str, Any]:
    command: list[Any] = [sys.executable, "-m", "benchmarks.measure"]
    command += [case.model, out, case.feeds("test")]
    command += ["--metric", case.metric] if case.metric else []
    command += ["--mask", case.mask] if case.mask else []
    command += [] if latency else ["--no-latency"]
    return script(command, timeout)


def task(case: Case, row: Row) -> str:
    """The task metric with the float model's in brackets."""
    if case.metric not in row:
        return ""
    return f"{row[case.metric]} ({row[f'{case.metric}_float']})"


def prepared(names: list[str]) -> Iterator[Case]:
    """The cases of these names whose data is at hand; the others are named with the reason."""
    for name in names:
        try:
            yield prepare((CASES | GRAPHS)[name])
        except DataError as error:
            print(f"{name}: left out: {error}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--configs", nargs="+", help="only these configurations of the peers")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of one quantization")
    args = parser.parse_args(arguments)
    for case in prepared(args.models):
        rows = []
        for peer in (PEERS[each] for each in args.peers):
            for config in peer.configs:
                if config in CLEANUPS or config not in (args.configs or peer.configs):
                    continue
                row = run(case, peer, config, not args.no_latency, args.timeout)
                keep("w8a8", row, KEYS)
                rows.append(row | {"task": task(case, row)})
        show(f"{case.name}, W8A8, executed in ONNX Runtime", rows, COLUMNS)


if __name__ == "__main__":
    main()
