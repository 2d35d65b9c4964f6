"""Walsh-Hadamard transform of a weight: ours, the dense product, and brevitas, in one run.

    python -m benchmarks.hadamard [--size 4096] [--rounds 5]

Median CPU seconds on one thread, float32; brevitas runs in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.peers import Failed, Peer, script
from benchmarks.record import Row, keep, machine, show
from ir import hadamard

REQUIRED = ("brevitas==0.13.4", "torch==2.13.0", "dependencies==2.0.1")
BREVITAS = Peer("brevitas", "brevitas", {}, REQUIRED)
COLUMNS = ["name", "size", "cpu_s", "of_dense"]


def seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    found = []
    for _ in range(rounds):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return statistics.median(found)


def ours(size: int, rounds: int) -> dict[str, float]:
    w = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    h = hadamard.matrix(size).astype(np.float32)
    gap = np.abs(hadamard.transform(w) - w @ h).max()
    if not gap < 1e-4:
        raise ValueError(f"the transform is {gap} from the dense product")
    return {
        "ptqc, inputs": seconds(lambda: hadamard.transform(w), rounds),
        "ptqc, outputs": seconds(lambda: hadamard.transform(w, 0), rounds),
        "dense product": seconds(lambda: w @ h, rounds),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--here", action="store_true", help="ours alone, as JSON")
    args = parser.parse_args(arguments)
    if args.here:
        print(json.dumps(ours(args.size, args.rounds)))
        return
    sizes = ["--size", args.size, "--rounds", args.rounds, "--here"]
    found = script([sys.executable, "-m", "benchmarks.hadamard", *sizes], 600)
    failure = ""
    try:
        command = [BREVITAS.python(), "-m", "benchmarks.workers.brevitas", args.size, args.rounds]
        found["brevitas matmul_hadU"] = script(command, 600)  # type: ignore[assignment]
    except (Failed, OSError) as error:
        failure = str(error)
    rows: list[Row] = [
        {"name": name, "size": args.size, "cpu_s": round(cpu, 4),
         "of_dense": round(cpu / found["dense product"], 3)} | machine()
        for name, cpu in found.items()
    ]  # fmt: skip
    if failure:
        rows.append({"name": "brevitas matmul_hadU", "size": args.size, "failure": failure})
    for row in rows:
        keep("hadamard", row, ("name", "size"))
    show("Walsh-Hadamard transform", [row | {"model": "", "peer": row["name"]} for row in rows],
         COLUMNS)  # fmt: skip


if __name__ == "__main__":
    main()
