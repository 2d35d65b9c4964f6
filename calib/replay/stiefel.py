"""Orthogonal matrices that are trained: Adam on the Stiefel manifold, retracted by Cayley's map.

R moves by R (I + X/2)^-1 (I - X/2) with X skew, so that it stays orthogonal but for rounding. In
place of the gradient G of the loss stands its tangent in R's own axes, A = R^T G - G^T R: a vector
of one linear space wherever R is, so that momentum needs no transport.
Source: Cayley SGD, arXiv:2002.01113 (SpinQuant's); Riemannian Adam, arXiv:1810.00760 (OSTQuant's).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

BETAS = (0.9, 0.99)
TINY = 1e-12
"""Below this root mean square of its tangents a matrix does not move."""


class RiemannianAdam:
    """Trains matrices f64[n, n] by name. Each has one second moment for all its elements, as the
    manifold's metric has it: a step turns every channel by about `rate` radians, whatever n."""

    def __init__(self, matrices: Mapping[str, torch.Tensor]) -> None:
        self.matrices = dict(matrices)
        self.step_count = 0
        self.first = {name: torch.zeros_like(m) for name, m in self.matrices.items()}
        self.second = dict.fromkeys(self.matrices, 0.0)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix that has a gradient against it."""
        self.step_count += 1
        for name, matrix in self.matrices.items():
            if matrix.grad is None:
                continue
            slope = tangent(matrix, matrix.grad)
            self.first[name].lerp_(slope, 1 - BETAS[0])
            power = float(slope.square().sum()) / len(slope)
            self.second[name] += (1 - BETAS[1]) * (power - self.second[name])
            mean = self.first[name] / (1 - BETAS[0] ** self.step_count)
            size = math.sqrt(self.second[name] / (1 - BETAS[1] ** self.step_count))
            if size > TINY:
                matrix.copy_(cayley(matrix, mean * (rate / size)))

    def state(self) -> dict[str, Any]:
        return {"count": self.step_count, "first": self.first, "second": self.second}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.step_count, self.second = state["count"], dict(state["second"])
        for name, held in self.first.items():
            held.copy_(state["first"][name])


def tangent(matrix: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """R^T G - G^T R, skew: the direction in which R's loss rises fastest, seen from R."""
    seen = matrix.T @ gradient
    return seen - seen.T


def cayley(matrix: torch.Tensor, skew: torch.Tensor) -> torch.Tensor:
    """R (I + X/2)^-1 (I - X/2), which is R (I - X) to first order and orthogonal for every X."""
    eye = torch.eye(len(skew), dtype=skew.dtype)
    return matrix @ torch.linalg.solve(eye + skew / 2, eye - skew / 2)


def nearest_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal factor f64[n, n] of the polar decomposition: no orthogonal one is nearer."""
    left, _, right = np.linalg.svd(matrix.astype(np.float64))
    return left @ right
