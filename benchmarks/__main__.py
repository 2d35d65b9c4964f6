"""`python -m benchmarks [FAMILY ...]`: every family, or those named, each with its defaults."""

from __future__ import annotations

import sys

from benchmarks import (
    captured,
    cleanup,
    hadamard,
    memory,
    rotations,
    saturation,
    scaling,
    transforms,
    w8a8,
)
from benchmarks.study import __main__ as study

FAMILIES = {
    "w8a8": w8a8,
    "saturation": saturation,
    "captured": captured,
    "cleanup": cleanup,
    "hadamard": hadamard,
    "rotations": rotations,
    "transforms": transforms,
    "scaling": scaling,
    "memory": memory,
    "study": study,
}


def main() -> None:
    names = sys.argv[1:] or list(FAMILIES)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        sys.exit(f"no family is called {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    for name in names:
        FAMILIES[name].main([])


if __name__ == "__main__":
    main()
