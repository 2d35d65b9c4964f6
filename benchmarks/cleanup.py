"""Clean-up of a float graph by ptqc, onnxslim, onnxsim and ONNX Runtime, in one run: nodes left,
CPU seconds, and whether the outputs are equal, at the model's original sizes and at others.

python -m benchmarks.cleanup [--models NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks import feeds
from benchmarks.cases import CACHE, CASES, GRAPHS, Case
from benchmarks.peers import PEERS, Failed, quantize, script
from benchmarks.record import Row, keep, machine, show
from benchmarks.sizes import drawn
from benchmarks.w8a8 import prepared

ALL = CASES | GRAPHS
KEYS = ("model", "peer", "config")
COLUMNS = [
    "model",
    "peer",
    "config",
    "nodes_before",
    "nodes",
    "cpu_s",
    "peak_mb",
    "original",
    "other",
]
CONFIGS = (
    ("ptqc", "clean"),
    ("ptqc", "clean_unchecked"),
    ("onnxslim", "slim"),
    ("onnxsim", "simplify"),
    ("ort", "basic"),
)
EQUAL = 1e-5
"""Largest difference, relative to an output's largest magnitude, of the same function in float32:
order of summation, folded constants."""


def cleaned(case: Case, peer: str, config: str) -> Row:
    """Cleans one model up and compares; what fails becomes the row's `failure`."""
    out = CACHE / "out" / case.name / f"{peer}-{config}.onnx"
    out.parent.mkdir(parents=True, exist_ok=True)
    row: Row = {"model": case.name, "peer": peer, "config": config}
    try:
        row |= quantize(PEERS[peer], config, case, out, 900, case.feeds("sizes"))
        command = [sys.executable, "-m", "benchmarks.equal", case.model, out, case.feeds("sizes")]
        row |= script(command, 900)
    except Failed as failure:
        row["failure"] = str(failure).replace(str(CACHE), ".bench")
    return row | machine()


def verdict(found: Any) -> str:
    """A difference in words: 0, a figure, or how the model is broken."""
    if isinstance(found, str):
        return found
    return ("" if found <= EQUAL else "differs: ") + f"{found:.1e}"


def told(row: Row) -> Row:
    texts = [verdict(each) for each in row.get("differences", [])]
    return row | dict(zip(("original", "other"), [*texts, "fixed", "fixed"], strict=False))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(ALL), default=list(ALL))
    args = parser.parse_args(arguments)
    for case in prepared(args.models):
        feeds.save(case.feeds("sizes"), drawn(case))
        rows = [cleaned(case, peer, config) for peer, config in CONFIGS]
        for row in rows:
            keep("cleanup", row, KEYS)
        show(f"{case.name}, clean-up", [told(row) for row in rows], COLUMNS)


if __name__ == "__main__":
    main()
