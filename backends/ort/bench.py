"""Latency on one thread: CPU time of models run in turn, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .session import Feeds, Session


@dataclass(frozen=True)
class Latency:
    """Median CPU milliseconds of one run of each model, and the ratio of each to the first."""

    milliseconds: tuple[float, ...]
    ratios: tuple[float, ...]


def latency(
    models: Sequence, feeds: Feeds, repeats: int = 21, least_seconds: float = 0.002
) -> Latency:
    """Run models (graphs, paths or sessions; the float one first) on the same feeds, in turn.

    least_seconds: short runs are repeated inside one measurement until it takes about this long.
    """
    sessions = [m if isinstance(m, Session) else Session(m, threads=1) for m in models]
    inner = [max(1, round(least_seconds / max(_once(s, feeds), 1e-7))) for s in sessions]
    times = np.zeros((repeats, len(sessions)))
    for row in times:
        for column, session in enumerate(sessions):
            started = time.process_time()
            for _ in range(inner[column]):
                session.run(feeds)
            row[column] = (time.process_time() - started) / inner[column]
    medians = np.median(times, axis=0)
    return Latency(tuple(medians * 1e3), tuple(medians / medians[0]))


def _once(session: Session, feeds: Feeds) -> float:
    """CPU seconds of the second run: the first one allocates."""
    session.run(feeds)
    started = time.process_time()
    session.run(feeds)
    return time.process_time() - started
