"""Hadamard matrices of many sizes, and products with them without the matrix."""

from __future__ import annotations

from functools import cache

import numpy as np


def matrix(n: int) -> np.ndarray:
    """H f64[n, n] of entries +-1/sqrt(n) with H H^T = I. ValueError where none is known here."""
    core = _core(n)
    signs = core
    while len(signs) < n:
        signs = np.kron(signs, [[1, 1], [1, -1]])
    return signs / np.sqrt(n)


def known(n: int) -> bool:
    """Whether there is a matrix of this size."""
    return _factor(n) is not None


def transform(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """x @ H along an axis, in float64: a butterfly for every factor 2, one product for the rest."""
    moved = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    n, core = moved.shape[-1], _core(moved.shape[-1])
    m = len(core)
    blocks = moved.reshape(-1, m, n // m)
    blocks = np.swapaxes(np.swapaxes(blocks, 1, 2) @ core, 1, 2) if m > 1 else blocks
    for step in [1 << k for k in range((n // m).bit_length() - 1)]:
        pairs = blocks.reshape(-1, 2, step)
        total = np.empty_like(pairs)
        np.add(pairs[:, 0], pairs[:, 1], out=total[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=total[:, 1])
        blocks = total
    return np.moveaxis(blocks.reshape(moved.shape) / np.sqrt(n), -1, axis)


def signs(n: int, rng: np.random.Generator) -> np.ndarray:
    """f64[n] of +1 and -1, each as likely."""
    return rng.integers(0, 2, n) * 2.0 - 1


def _factor(n: int) -> int | None:
    """The least m that leaves a power of two of n, and of which a construction is known."""
    odd = n & -n and n // (n & -n)
    if odd == 1:
        return 1
    m = odd * 4
    while n >= m > 0 and n % m == 0:
        if _paley(m):
            return m
        m *= 2
    return None


@cache
def _core(n: int) -> np.ndarray:
    """Signs [m, m] of the factor that is no power of two."""
    m = _factor(n)
    if m is None:
        raise ValueError(f"no Hadamard matrix of size {n} is known here")
    if m == 1:
        return np.ones((1, 1))
    q = _paley(m)
    squares = {i * i % q for i in range(1, q)}
    chi = np.array([0] + [1 if i in squares else -1 for i in range(1, q)], float)
    jacobsthal = chi[(np.arange(q)[:, None] - np.arange(q)) % q]
    bordered = np.ones((q + 1, q + 1))
    bordered[0, 0], bordered[1:, 1:] = 0, jacobsthal
    if q + 1 == m:  # q = 3 mod 4: the border is skew, as the rest
        bordered[1:, 0] = -1
        return np.eye(m) + bordered
    return np.kron(bordered, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])


def _paley(m: int) -> int:
    """The prime from which Paley's first or second construction makes size m, or 0."""
    for q, rest in ((m - 1, 3), (m // 2 - 1, 1)):
        if q % 4 == rest and q > 2 and all(q % d for d in range(2, int(q**0.5) + 1)):
            return q
    return 0
