"""What a column may be rounded to: the quantizers that `solve` calls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Limit = int | np.ndarray
Fit = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class Grid:
    """Rounds columns; `round` for one at a time, `round_vectors` where `width` share one code.

    groups: [K], which group a column belongs to, where `begin` fits a group's scale on what is left
    of its weights when its turn comes; None: all is known before. dtype: of the codes.
    Columns are named by their index in the weight; arrays have columns as rows [columns, N].
    """

    width: int = 1
    groups: np.ndarray | None = None
    dtype: np.dtype = np.dtype(np.int8)

    def begin(self, columns: np.ndarray, weights: np.ndarray, pivots: np.ndarray) -> None:
        """Columns of a group that starts, their weights [G, N] as compensated so far, and their
        pivots: a rounding error of d in column k costs (pivots[k] d)^2."""

    def round(
        self, column: int, x: np.ndarray, codes: np.ndarray, values: np.ndarray, pivot: float
    ) -> None:
        """Write the codes of x [N] and what they decode to."""
        raise NotImplementedError(f"{type(self).__name__} rounds vectors, not single columns")

    def round_vectors(
        self, columns: np.ndarray, x: np.ndarray, codes: np.ndarray, values: np.ndarray,
        factor: np.ndarray,
    ) -> None:  # fmt: skip
        """The same for x [width, N]: an error d [width, N] costs |factor.T @ d|^2."""
        raise NotImplementedError(f"{type(self).__name__} rounds single columns, not vectors")


class IntegerGrid(Grid):
    """Whole steps: codes = clip(rint(x / scale) + zero), values = (codes - zero) * scale.

    scale, zero (or None): broadcast to [K, N]; low, high: lowest and highest code, one number or
    one a column [K] (bits that differ from group to group). The numbers of `ir.formats.integer`.
    With `groups`, `fit(weights [G, N], pivots [G])` gives a group's scale and zero [N] in place of
    those of its columns; read the final ones from `scale` and `zero` [K, N].
    """

    def __init__(
        self, scale: np.ndarray, zero: np.ndarray | None, low: Limit, high: Limit, *,
        groups: np.ndarray | None = None, fit: Fit | None = None, dtype: type = np.int8,
    ) -> None:  # fmt: skip
        self.scale, self.zero = scale, zero
        columns = scale.shape[0]
        self.low = np.broadcast_to(np.asarray(low, np.float32), columns)
        self.high = np.broadcast_to(np.asarray(high, np.float32), columns)
        if (groups is None) != (fit is None):
            raise ValueError("groups and the rule that fits them come together")
        self.groups, self.fit, self.dtype = groups, fit, np.dtype(dtype)

    def begin(self, columns: np.ndarray, weights: np.ndarray, pivots: np.ndarray) -> None:
        if self.fit is not None:
            scale, zero = self.fit(weights, pivots)
            self.scale[columns] = scale
            if self.zero is not None and zero is not None:
                self.zero[columns] = zero

    def bounds(self, column: int) -> tuple[Limit | np.floating, Limit | np.floating]:
        return self.low[column], self.high[column]

    def round(
        self, column: int, x: np.ndarray, codes: np.ndarray, values: np.ndarray, pivot: float
    ) -> None:
        scale = self.scale[column]
        np.divide(x, scale, out=values)
        np.rint(values, out=values)
        if self.zero is not None:
            values += self.zero[column]
        low, high = self.bounds(column)
        np.maximum(values, low, out=values)
        np.minimum(values, high, out=values)
        codes[...] = values
        if self.zero is not None:
            values -= self.zero[column]
        values *= scale


class PairGrid(IntegerGrid):
    """Symmetric 8-bit codes in which no pair of columns (2j, 2j + 1) sums past `reach` in size.

    Whichever of a pair comes second keeps the rule; what it cannot take goes on to later columns.
    """

    def __init__(self, scale: np.ndarray, high: int, reach: int) -> None:
        super().__init__(scale, None, -high, high)
        self.top, self.reach = np.float32(high), np.float32(reach)
        self.last = scale.shape[0] - 1
        self.known: dict[int, np.ndarray] = {}

    def bounds(self, column: int) -> tuple[Limit | np.floating, Limit | np.floating]:
        partner = self.known.pop(column ^ 1, None)
        if partner is None:
            return -self.top, self.top
        return (
            np.maximum(-self.top, -self.reach - partner),
            np.minimum(self.top, self.reach - partner),
        )

    def round(
        self, column: int, x: np.ndarray, codes: np.ndarray, values: np.ndarray, pivot: float
    ) -> None:
        paired = (column ^ 1) in self.known
        super().round(column, x, codes, values, pivot)
        if not paired and column ^ 1 <= self.last:
            self.known[column] = codes.astype(np.float32)


class TwoGrids(Grid):
    """Columns where `second` [K] holds are rounded by another grid (neither with vectors)."""

    def __init__(self, one: Grid, two: Grid, second: np.ndarray) -> None:
        self.grids, self.second = (one, two), np.asarray(second, bool)
        self.dtype = np.promote_types(one.dtype, two.dtype)
        if one.groups is not None or two.groups is not None:
            shape = len(self.second)
            own = [g.groups if g.groups is not None else np.zeros(shape, int) for g in self.grids]
            self.groups = np.where(self.second, own[1] + 1 + own[0].max(), own[0])

    def begin(self, columns: np.ndarray, weights: np.ndarray, pivots: np.ndarray) -> None:
        grid = self.grids[int(self.second[columns[0]])]
        if grid.groups is not None:
            grid.begin(columns, weights, pivots)

    def round(
        self, column: int, x: np.ndarray, codes: np.ndarray, values: np.ndarray, pivot: float
    ) -> None:
        self.grids[int(self.second[column])].round(column, x, codes, values, pivot)


class KeepOutliers(Grid):
    """Single weights whose rounding would cost more than `threshold` stay as they are (SpQR).

    A weight's cost is (pivot * error)^2, in units of the Hessian. `kept` bool [K, N] says which;
    their code is what the grid gave, their value the weight that the recursion had reached.
    source: SpQR, arXiv:2306.03078, step 5
    """

    def __init__(self, grid: Grid, threshold: float, shape: tuple[int, int]) -> None:
        self.grid, self.threshold = grid, threshold
        self.groups, self.dtype = grid.groups, grid.dtype
        self.kept = np.zeros(shape, bool)

    def begin(self, columns: np.ndarray, weights: np.ndarray, pivots: np.ndarray) -> None:
        self.grid.begin(columns, weights, pivots)

    def round(
        self, column: int, x: np.ndarray, codes: np.ndarray, values: np.ndarray, pivot: float
    ) -> None:
        self.grid.round(column, x, codes, values, pivot)
        kept = np.square((values - x) * pivot) > self.threshold
        self.kept[column] = kept
        np.copyto(values, x, where=kept)
