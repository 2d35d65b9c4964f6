"""Which channels of a layer's input are alike: what is lost when two become their mean."""

from __future__ import annotations

import numpy as np


def scores(gram: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """f64[K, K]: mean square of what y loses when channels i and j become their mean.

    (x_j - x_i) / 2 times (w_i - w_j) is a product of a column and a row:
    |x_i - x_j|^2 |w_i - w_j|^2 / 4, of X^T X / rows and W W^T.
    """
    weight = weight.astype(np.float64)
    return distances(gram) * distances(weight @ weight.T) / 4


def distances(gram: np.ndarray) -> np.ndarray:
    """|v_i - v_j|^2 of vectors with these inner products, rounding below 0 taken away."""
    size = np.diag(gram)
    return np.maximum(size[:, None] + size[None, :] - 2 * gram, 0)


def matched(costs: np.ndarray, count: int, fixed: np.ndarray) -> np.ndarray:
    """i64 [at most count, 2]: disjoint pairs of an even and an odd place, the cheapest first."""
    even, odd = np.flatnonzero(~fixed[::2]) * 2, np.flatnonzero(~fixed[1::2]) * 2 + 1
    table = costs[np.ix_(even, odd)]
    chosen: list[tuple[int, int]] = []
    free_even, free_odd = np.ones(len(even), bool), np.ones(len(odd), bool)
    for place in np.argsort(table, axis=None, kind="stable"):
        if len(chosen) == count:
            break
        i, j = divmod(int(place), len(odd))
        if free_even[i] and free_odd[j]:
            free_even[i] = free_odd[j] = False
            chosen.append((int(even[i]), int(odd[j])))
    return np.array(chosen, np.int64).reshape(-1, 2)
