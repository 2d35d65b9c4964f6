"""What some code costs, counted and not timed: the same on a busy machine."""

from __future__ import annotations

import cProfile
import math
from collections.abc import Callable


def calls(work: Callable[..., object], *arguments: object) -> int:
    """How many function calls, also of builtins, some work takes."""
    profile = cProfile.Profile()
    profile.runcall(work, *arguments)
    return sum(entry.callcount for entry in profile.getstats())


def exponent(sizes: tuple[int, int], costs: tuple[int, int]) -> float:
    """Of cost over size: 1 is linear."""
    return math.log(costs[1] / costs[0]) / math.log(sizes[1] / sizes[0])
