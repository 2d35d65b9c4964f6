"""The recursion: columns are rounded one by one, and those still free make up for the error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from passes.rounding.core.factor import Damped, factor
from passes.rounding.core.grids import Grid

LEAF = 32
"""Columns of the innermost block: their errors [32, N] stay in the cache."""


@dataclass(frozen=True, eq=False)
class Solution:
    """codes, values [N, K] (values: what the codes decode to); loss f64 [K], of every column.

    With D = values - weight: loss sums to tr(D (H + added I) D'); `error` is tr(D H D') itself.
    damp: what was used in the end; dead: how many channels had no input.
    """

    codes: np.ndarray
    values: np.ndarray
    loss: np.ndarray
    error: float
    damp: float
    dead: int


def act_order(hessian: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Columns by falling diagonal; with groups [K] given, whole groups by their mean first.

    source: GPTQ's act-order; groups kept whole: as GPTQModel's group-aware order
    """
    diagonal = np.diagonal(hessian)
    if groups is None:
        return np.argsort(-diagonal, kind="stable")
    _, place = np.unique(groups, return_inverse=True)
    means = np.bincount(place, diagonal) / np.bincount(place)
    return np.lexsort((-diagonal, place, -means[place]))


def solve(
    weight: np.ndarray,
    hessian: np.ndarray | Damped,
    grid: Grid,
    *,
    damp: float = 0.01,
    order: np.ndarray | None = None,
) -> Solution:
    """Codes of `weight` [N, K] with little tr(D H D'), D = values - weight.

    hessian: [K, K] symmetric, positive semidefinite up to rounding (any multiple of it gives the
    same codes), or its factor in the same order; grid: see `grids.Grid`; damp: share of the mean
    diagonal; order: the columns in the order of rounding (None: as they stand). float64 weights are
    solved in float64, others in float32. A channel without input is rounded to nearest.

    With L L' = H in the reversed order, column k is rounded after all j behind it, at
    `w_k - sum_j d_j L_jk / L_kk`, and costs `L_kk^2 |q_k - that|^2`: what GPTQ computes, whose
    U_kk is 1 / L_kk. The range is halved again and again, so that most of the work is large matrix
    products; only the last `LEAF` columns are taken one by one.

    raises: SolveError (see `factor`); ValueError when the order tears a grid's group.
    source: GPTQ, arXiv:2210.17323; as Babai's nearest plane: arXiv:2507.18553
    """
    columns = weight.shape[1]
    kind = np.float64 if weight.dtype == np.float64 else np.float32
    back = np.arange(columns) if order is None else np.asarray(order)
    back = back[::-1]  # the first to be rounded stands last
    if isinstance(hessian, Damped):
        damped = hessian
    else:
        same = order is None and hessian.flags.c_contiguous
        moved = hessian[::-1, ::-1] if same else hessian[np.ix_(back, back)]
        damped = factor(moved, damp, kind)
    walk = _Walk(weight, damped, grid, back, kind)
    walk.descend(0, columns)
    place = np.empty(columns, np.intp)
    place[back] = np.arange(columns)
    delta = walk.delta
    dead = damped.dead
    loss = np.where(dead, 0.0, walk.loss)
    live = delta[~dead] if dead.any() else delta
    added = damped.added * float(np.vdot(live, live))
    return Solution(
        walk.codes[place].T, walk.values[place].T, loss[place],
        max(0.0, float(loss.sum()) - added), damped.damp, int(dead.sum()),
    )  # fmt: skip


class _Walk:
    """The state of one solve; every array has its columns as rows [K, N], in the order `back`."""

    def __init__(
        self, weight: np.ndarray, damped: Damped, grid: Grid, back: np.ndarray, kind: type
    ) -> None:
        self.grid, self.back = grid, back
        self.work = np.ascontiguousarray(weight.T[back], dtype=kind)
        self.delta = np.negative(self.work)  # becomes q - w
        self.values = np.empty_like(self.work)
        self.codes = np.empty(self.work.shape, grid.dtype)
        self.unit, self.pivots = damped.unit, damped.pivots
        self.loss = np.zeros(len(back))
        self.scratch = np.empty(weight.shape[0], kind)
        groups = grid.groups
        self.groups = None if groups is None else np.asarray(groups)[back]
        if self.groups is not None:
            runs = 1 + np.count_nonzero(np.diff(self.groups))
            if runs != len(np.unique(self.groups)):
                raise ValueError("the order tears a group whose scale is fitted on the way")

    def descend(self, low: int, high: int) -> None:
        """Round the columns [low, high), to which all earlier errors have been passed on."""
        groups = self.groups
        border = None if groups is None else 1 + low + np.flatnonzero(np.diff(groups[low:high]))
        whole = border is not None and not len(border)
        if whole and groups is not None and (high == len(groups) or groups[high] != groups[low]):
            self.grid.begin(self.back[low:high], self.work[low:high], self.pivots[low:high])
        if high - low <= max(LEAF, self.grid.width) and (border is None or whole):
            self.leaf(low, high)
            return
        middle = (low + high) // 2
        if border is not None and len(border):
            middle = int(border[np.argmin(np.abs(border - middle))])
        elif self.grid.width > 1:
            middle = high - -(-(high - middle) // self.grid.width) * self.grid.width
        self.descend(middle, high)
        part = torch.from_numpy(self.unit)[middle:high, low:middle]
        torch.from_numpy(self.work)[low:middle].addmm_(
            part.t(), torch.from_numpy(self.delta)[middle:high], alpha=-1
        )
        self.descend(low, middle)

    def leaf(self, low: int, high: int) -> None:
        if self.grid.width > 1:
            self.vectors(low, high)
            return
        unit, delta, scratch = self.unit, self.delta, self.scratch
        for k in range(high - 1, low - 1, -1):
            column = self.work[k]
            if k + 1 < high:
                np.dot(unit[k + 1 : high, k], delta[k + 1 : high], out=scratch)
                column -= scratch
            value = self.values[k]
            self.grid.round(int(self.back[k]), column, self.codes[k], value, self.pivots[k])
            delta[k] += value
            np.subtract(value, column, out=scratch)
            self.loss[k] = float(self.pivots[k]) ** 2 * float(np.dot(scratch, scratch))

    def vectors(self, low: int, high: int) -> None:
        """Columns that share a code: each vector is rounded in the metric of its own block."""
        for stop in range(high, low, -self.grid.width):
            start = max(low, stop - self.grid.width)
            self._vector(start, stop)
            rest = self.unit[start:stop, low:start].T @ self.delta[start:stop]
            self.work[low:start] -= rest

    def _vector(self, start: int, stop: int) -> None:
        part = slice(start, stop)
        block = np.tril(self.unit[part, part], -1) + np.eye(stop - start, dtype=self.unit.dtype)
        pending = -(self.delta[part] + self.work[part])  # w - work: errors of columns before
        centre = self.work[part] + pending - np.linalg.solve(block.T, pending)
        factor = block * self.pivots[part]
        self.grid.round_vectors(
            self.back[part], centre, self.codes[part], self.values[part], factor
        )
        self.delta[part] += self.values[part]
        steps = factor.T @ (self.values[part] - centre)
        self.loss[part] = np.square(steps, dtype=np.float64).sum(1)
