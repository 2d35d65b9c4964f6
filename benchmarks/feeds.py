"""Feeds in one .npz file: the array of feed i for input x has the key `i/x`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Feed = dict[str, np.ndarray]


def save(path: Path, feeds: Iterable[Feed]) -> None:
    arrays = {f"{i}/{name}": array for i, feed in enumerate(feeds) for name, array in feed.items()}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> list[Feed]:
    """The feeds in their order."""
    feeds: dict[int, Feed] = defaultdict(dict)
    with np.load(path) as arrays:
        for key in arrays.files:
            index, name = key.split("/", 1)
            feeds[int(index)][name] = arrays[key]
    return [feeds[i] for i in sorted(feeds)]
