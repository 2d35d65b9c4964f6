"""What a worker is: `python -m benchmarks.workers.X MODEL CALIB OUT OPTIONS`, one JSON line out.

A worker hands one function `quantize(model, feeds, out, options)` to `main`, which reads the
calibration feeds, calls it, and measures that call alone: imports and reading data do not count.
It runs in the peer's environment, so nothing here may need more than numpy.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.feeds import Feed, load

Quantize = Callable[[Path, list[Feed], Path, dict[str, Any]], None]


def memory_mb(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (peak) of this process. (ru_maxrss would count the parent's too.)"""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found, f"no {field} in /proc/self/status"
    return int(found[1]) / 1024


def costs(work: Callable[[], object]) -> dict[str, float]:
    """What one call costs: seconds, peak resident memory, and how far above that before it."""
    before = memory_mb("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "cpu_s": round(time.process_time() - cpu, 3),
        "wall_s": round(time.perf_counter() - wall, 3),
        "peak_mb": round(memory_mb("VmHWM")),
        "delta_mb": round(memory_mb("VmHWM") - before),
    }


def main(quantize: Quantize) -> None:
    model, calibration, out = (Path(argument) for argument in sys.argv[1:4])
    options = json.loads(sys.argv[4])
    feeds = load(calibration)
    print("\n" + json.dumps(costs(lambda: quantize(model, feeds, out, options))))
