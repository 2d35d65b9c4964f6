"""The triangular factor that the recursion runs on, and what is done about matrices without one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

STEP = 10.0
"""Factor between two tries of the damping."""
FIRST, MOST = 1e-6, 1.0
"""What a damping of 0 is raised to when it does not do, and where raising it ends."""


class SolveError(ValueError):
    """A Hessian that cannot be one: not finite, or negative on its diagonal beyond rounding."""


@dataclass(frozen=True, eq=False)
class Damped:
    """L L' = H + added * I, as unit [K, K] = L / diag(L) by columns and pivots [K] = diag(L).

    Only what lies below the diagonal of `unit` means anything. dead bool [K]: channels whose input
    was always zero (pivot 1); damp: the share of the mean diagonal that was added in the end;
    added: that times the mean.
    """

    unit: np.ndarray
    pivots: np.ndarray
    dead: np.ndarray
    damp: float
    added: float


def factor(hessian: np.ndarray, damp: float, kind: type = np.float32) -> Damped:
    """Cholesky factor of the damped Hessian [K, K], read backwards by `solve`.

    GPTQ needs U with U'U = H^-1. Its columns are solved for from the last row of L with LL' = H up
    (Babai's nearest plane), so that neither the inverse nor a second factor is computed: K^3/3.

    Damping adds `damp * mean(diag)` (of the channels alive) to the diagonal. Where the matrix is
    not positive definite then, damp is raised tenfold (from 0: to `FIRST`) until it is.

    raises: SolveError for numbers that are not finite, a negative diagonal, or a matrix that even
    `MOST` does not make positive definite.
    source: GPTQ, arXiv:2210.17323, step 3; the order of solving: card gptq
    """
    diagonal = np.diagonal(hessian).astype(np.float64)
    if not np.isfinite(diagonal).all():
        raise SolveError("the Hessian is not finite")
    alive = diagonal > 0
    mean = float(diagonal[alive].mean()) if alive.any() else 1.0
    if (diagonal < -1e-6 * mean).any():
        raise SolveError(f"the Hessian has {diagonal.min():.3g} on its diagonal: no sum of squares")
    while True:
        # Division by the mean keeps sums over many tokens inside the range of float32.
        work = np.divide(hessian, mean, dtype=np.float64).astype(kind)
        work[~alive, :] = 0
        work[:, ~alive] = 0
        new = np.where(alive, diagonal / mean + damp, 1.0)
        np.fill_diagonal(work, new)
        (potrf,) = lapack.get_lapack_funcs(("potrf",), (work,))
        _, failed = potrf(work.T, lower=0, clean=0, overwrite_a=1)
        if not failed and np.isfinite(np.diagonal(work)).all():
            pivots = np.diagonal(work).copy()
            work /= pivots
            pivots *= np.where(alive, np.sqrt(mean), 1.0).astype(kind)
            return Damped(work, pivots, ~alive, damp, damp * mean)
        if damp >= MOST or not np.isfinite(hessian).all():
            raise SolveError(f"the Hessian is not positive definite with a damping of {damp:g}")
        damp = min(MOST, max(FIRST, damp * STEP))
