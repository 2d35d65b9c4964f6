"""Pictures out of a velocity model: Euler steps of a rectified flow with classifier-free guidance.

A velocity is any function `f(x, t, label)` of arrays x f32[n, ...], t f32[n], label i64[n] that
gives f32[n, ...]; `of_module` and `of_graph` make one of a torch module and of whatever has
`run(feeds)`: an executor, an artifact, a session. Equal noise gives comparable pictures.
source: rectified flow arXiv:2209.03003, guidance arXiv:2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

Feed = dict[str, np.ndarray]
Velocity = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def of_module(net: torch.nn.Module) -> Velocity:
    def velocity(*arrays: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return net(*(torch.from_numpy(array) for array in arrays)).numpy()

    return velocity


def of_graph(run: Callable[[Feed], Mapping[str, Any]]) -> Velocity:
    """run: the bound method, {input name: array} -> {output name: array or tensor}, one output."""

    def velocity(x: np.ndarray, t: np.ndarray, label: np.ndarray) -> np.ndarray:
        (output,) = run({"x": x, "t": t, "label": label}).values()
        return np.asarray(output.detach() if hasattr(output, "detach") else output)

    return velocity


def noise(n: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """f32[n, *shape] standard normal; a larger n begins with the same pictures."""
    return np.random.default_rng(seed).standard_normal((n, *shape), np.float32)


def sample(
    velocity: Velocity,
    start: np.ndarray,
    labels: np.ndarray,
    steps: int = 20,
    guidance: float = 2.0,
    *,
    no_class: int,
) -> np.ndarray:
    """f32[n, ...]: the pictures that flow out of the noise `start` from t = 1 to t = 0.

    labels i64[n]; guidance 1 is the plain conditional flow, more leans further away from the
    flow without class. The two flows are evaluated in calls of their own, so that no scale
    computed at run time mixes them.
    """
    x = start
    for _, after in _steps(velocity, start, labels, steps, guidance, no_class):
        x = after
    return x


def trajectories(
    velocity: Velocity,
    start: np.ndarray,
    labels: np.ndarray,
    steps: int = 20,
    guidance: float = 2.0,
    *,
    no_class: int,
) -> Iterator[Feed]:
    """Everything `sample` asks of the velocity, as feeds of one picture each: x, t, label.

    Step by step, with the class and (if guidance is not 1) without it.
    """
    for asked, _ in _steps(velocity, start, labels, steps, guidance, no_class):
        for x, t, label in asked:
            for i in range(len(x)):
                yield {"x": x[i : i + 1], "t": t[i : i + 1], "label": label[i : i + 1]}


def _steps(
    velocity: Velocity,
    x: np.ndarray,
    labels: np.ndarray,
    steps: int,
    guidance: float,
    no_class: int,
) -> Iterator[tuple[list[tuple[np.ndarray, ...]], np.ndarray]]:
    """Per step: the arguments of every call, and x after it."""
    if steps < 1:
        raise ValueError(f"steps is {steps}, must be 1 or more")
    times = np.linspace(1, 0, steps + 1)
    for now, later in pairwise(times):
        t = np.full(len(x), now, np.float32)
        asked = [(x, t, labels)]
        v = velocity(*asked[0])
        if guidance != 1:
            asked.append((x, t, np.full_like(labels, no_class)))
            plain = velocity(*asked[1])
            v = plain + np.float32(guidance) * (v - plain)
        x = x + np.float32(later - now) * v
        yield asked, x
