"""Clean-up of a float graph: nodes left, CPU seconds and memory, and whether the outputs are equal.

python -m benchmarks.cleanup [--models NAME ...]
"""

from __future__ import annotations

import argparse

from benchmarks.cases import CASES
from benchmarks.peers import PEERS
from benchmarks.record import keep, show
from benchmarks.w8a8 import KEYS, prepared, run

COLUMNS = ["model", "peer", "config", "nodes", "sqnr_db", "cpu_s", "peak_mb", "latency_ratio"]
CONFIGS = (("ptqc", "clean"), ("onnxsim", "simplify"), ("ort", "basic"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=["minilm", "big24"])
    args = parser.parse_args(arguments)
    for case in prepared(args.models):
        rows = [run(case, PEERS[peer], config, True, 600) for peer, config in CONFIGS]
        for row in rows:
            keep("cleanup", row, KEYS)
        show(f"{case.name}, clean-up (sqnr_db: to the model as it came)", rows, COLUMNS)


if __name__ == "__main__":
    main()
