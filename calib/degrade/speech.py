"""Speech made worse: noise at a stated signal-to-noise ratio, and another speed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ir.errors import DataError


def add_noise(wave: np.ndarray, db: float, rng: np.random.Generator) -> np.ndarray:
    """wave[samples] plus white Gaussian noise, 10 log10(power of wave / power of noise) = db.

    The noise drawn is scaled to that ratio exactly. Nothing is clipped.

    raises: DataError for a silent wave, whose ratio to noise has no meaning.
    """
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    if not power > 0:
        raise DataError("silence has no signal-to-noise ratio", hint="leave silent clips out")
    noise = rng.standard_normal(len(wave))
    noise *= np.sqrt(power / 10 ** (db / 10) / np.mean(noise**2))
    return (wave + noise).astype(wave.dtype)


def change_speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """wave[samples] played `factor` times as fast: its length divided, its pitch multiplied by it.

    `factor` is taken as the nearest fraction with a denominator of at most 100.

    raises: DataError outside 0.25 to 4.
    """
    if not 0.25 <= factor <= 4:
        raise DataError(f"a speed of {factor} is no speech", hint="give 0.25 to 4")
    import scipy.signal  # takes a second to import

    ratio = Fraction(factor).limit_denominator(100)
    fast = scipy.signal.resample_poly(wave, ratio.denominator, ratio.numerator)
    return fast.astype(wave.dtype)
