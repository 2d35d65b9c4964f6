"""Figures of quality. Each accumulator has add(), merge() and result(); arrays numpy or torch."""

from calib.metrics.difference import (
    Agreement,
    Comparison,
    Difference,
    agreement,
    compare,
    cosine,
    max_abs,
    sqnr_db,
)

__all__ = [
    "Agreement",
    "Comparison",
    "Difference",
    "agreement",
    "compare",
    "cosine",
    "max_abs",
    "sqnr_db",
]
