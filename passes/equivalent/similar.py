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
    """i64 [at most count, 2]: disjoint pairs of channels that are not fixed, the cheapest first.

    Of those in turn one is left and the next is right: a pair has one of each (bipartite matching).
    """
    free = np.flatnonzero(~fixed)
    left, right = free[::2], free[1::2]
    table = costs[np.ix_(left, right)]
    chosen: list[tuple[int, int]] = []
    open_left, open_right = np.ones(len(left), bool), np.ones(len(right), bool)
    for place in np.argsort(table, axis=None, kind="stable"):
        if len(chosen) == count:
            break
        i, j = divmod(int(place), len(right))
        if open_left[i] and open_right[j]:
            open_left[i] = open_right[j] = False
            chosen.append((int(left[i]), int(right[j])))
    return np.array(chosen, np.int64).reshape(-1, 2)


def apart(parts: np.ndarray, widest: np.ndarray) -> np.ndarray:
    """An order of places that puts each part of a split channel beside a whole one.

    Parts of one channel have one weight, and kernels that add up neighbouring products (places 2j
    and 2j + 1) cannot take twice that: passes/rounding/limits.py. With parts in a row MiniLM fell
    from 19 to 6 dB. parts: bool [K]; widest [K]: largest magnitudes of the weights that read the
    places, the least of which stand beside parts.
    """
    split, whole = np.flatnonzero(parts), np.flatnonzero(~parts)
    beside = whole[np.argsort(widest[whole], kind="stable")][: len(split)]
    pairs = np.stack([split[: len(beside)], beside], axis=1).ravel()
    return np.concatenate([pairs, np.setdiff1d(whole, beside), split[len(beside) :]])
