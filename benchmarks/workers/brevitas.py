"""brevitas' Walsh-Hadamard transform: `python -m benchmarks.workers.brevitas SIZE ROUNDS`.

Prints the median CPU seconds for a float32 matrix [SIZE, SIZE] on one thread, as one JSON number.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from brevitas.graph.hadamard import matmul_hadU


def main() -> None:
    size, rounds = map(int, sys.argv[1:3])
    torch.set_num_threads(1)
    w = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(rounds + 1):
        before = time.process_time()
        matmul_hadU(w)
        seconds.append(time.process_time() - before)
    print(json.dumps(statistics.median(seconds[1:])))


if __name__ == "__main__":
    main()
