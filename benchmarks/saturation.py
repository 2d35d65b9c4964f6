"""The same file on a CPU without VNNI, where x86's u8 x s8 products saturate: SQNR on both.

    python -m benchmarks.saturation [--models NAME ...] [--feeds 5]

Runs on what `benchmarks.w8a8` has left in the cache. The other CPU is emulated (Debian package
`qemu-user-static`), about thirty times slower than the real one, so a few feeds have to do.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.cases import CACHE, CASES, Case
from benchmarks.peers import Failed, script
from benchmarks.record import Row, keep, machine, show
from benchmarks.w8a8 import prepared

EMULATOR = ("qemu-x86_64-static", "-cpu", "Haswell")
COLUMNS = ["model", "peer", "config", "sqnr_db", "sqnr_db_no_vnni", "loss_db"]


def executed(case: Case, path: Path, feeds: int, before: tuple[str, ...], timeout: float) -> float:
    """SQNR in dB against the float model on the first test feeds."""
    command: list[Any] = [*before, sys.executable, "-m", "benchmarks.measure", case.model, path]
    command += [case.feeds("test"), "--no-latency", "--feeds", feeds]
    command += ["--mask", case.mask] if case.mask else []
    return script(command, timeout)["sqnr_db"]


def run(case: Case, path: Path, feeds: int, timeout: float) -> Row:
    peer, config = path.stem.rsplit("-", 1)
    row: Row = {"model": case.name, "peer": peer, "config": config, "test": feeds}
    try:
        row["sqnr_db"] = executed(case, path, feeds, (), timeout)
        row["sqnr_db_no_vnni"] = executed(case, path, feeds, EMULATOR, timeout)
        row["loss_db"] = round(row["sqnr_db"] - row["sqnr_db_no_vnni"], 2)
    except Failed as failure:
        row["failure"] = str(failure).replace(str(CACHE), ".bench")
    return row | machine()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    small = ["digits_cnn", "digits_vit", "digits_vit_outlier"]
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=small)
    parser.add_argument("--peers", nargs="+", help="only these")
    parser.add_argument("--feeds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=600)
    args = parser.parse_args(arguments)
    if not shutil.which(EMULATOR[0]):
        print(f"saturation: left out: there is no {EMULATOR[0]}")
        return
    for case in prepared(args.models):
        paths = sorted((CACHE / "out" / case.name).glob("*-*.onnx"))
        wanted = [p for p in paths if not args.peers or p.stem.rsplit("-", 1)[0] in args.peers]
        rows = []
        for path in wanted:
            rows.append(run(case, path, args.feeds, args.timeout))
            keep("saturation", rows[-1], ("model", "peer", "config"))
        show(f"{case.name}, SQNR in dB with and without VNNI", rows, COLUMNS)


if __name__ == "__main__":
    main()
