"""X^T X: the inputs of a matrix product, as the rounding methods need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from calib.stats.base import Stat
from calib.stats.sample import Sample
from ir.errors import DataError

_PANEL = 256  # columns per product: only blocks on and above the diagonal are computed


@dataclass(frozen=True, eq=False)
class GramResult:
    """gram: float64 [K, K] = sum over rows of x^T x; rows: how many rows entered.

    GPTQ's Hessian is 2 * gram / rows.
    """

    gram: np.ndarray
    rows: int


@dataclass(eq=False)
class Gram(Stat):
    """Second moments between the channels of `axis`; every other axis is rows.

    Products run in the tensor's precision over at most `chunk` rows at a time and are then added
    in float64, so that the error does not grow with the data. A row that holds a masked
    element is left out. Rows are weighted alike, whatever batch they came in.
    result(): GramResult. source: GPTQ, arXiv:2210.17323
    """

    name: ClassVar[str] = "gram"
    kept: ClassVar[tuple[str, ...]] = ("total", "rows")

    axis: int | None = -1
    chunk: int = 4096

    def __post_init__(self) -> None:
        if self.axis is None:
            raise DataError("gram needs an axis", hint="say which axis holds the channels")
        self.total: Any = 0.0  # float64 [K, K], upper triangle of panels
        self.rows: int = 0
        self._partial: torch.Tensor | None = None  # float32 [K, K], not yet in `total`
        self._partial_rows = 0

    def _add(self, sample: Sample) -> None:
        _ = sample.range  # finiteness
        values, masked = sample.grouped(self.axis)
        seen = self._partial if self._partial is not None else self.total
        if np.ndim(seen):
            self._same_channels(seen[0], values[0, :, 0], sample)
        rows = values.transpose(1, 2).reshape(-1, values.shape[1])
        if masked is not None:
            rows = rows[~masked.any(dim=1).reshape(-1)]
        rows = rows.to(torch.float64 if rows.dtype == torch.float64 else torch.float32)
        for part in rows.split(self.chunk):
            self._add_rows(part)

    def _add_rows(self, rows: torch.Tensor) -> None:
        if self._partial is not None and self._partial_rows + len(rows) > self.chunk:
            self._flush()
        channels = rows.shape[1]
        if self._partial is None or self._partial.dtype != rows.dtype:
            self._flush()
            self._partial = torch.zeros(channels, channels, dtype=rows.dtype)
        for start in range(0, channels, _PANEL):
            block = rows[:, start : start + _PANEL]
            self._partial[start : start + _PANEL, start:].addmm_(block.T, rows[:, start:])
        self._partial_rows += len(rows)
        self.rows += len(rows)

    def _flush(self) -> None:
        """Move the float32 products into the float64 sum."""
        if self._partial is None or not self._partial_rows:
            return
        if not np.ndim(self.total):
            self.total = np.zeros(self._partial.shape)
        self.total += self._partial.numpy()
        self._partial.zero_()
        self._partial_rows = 0

    def _merge(self, other: Any) -> None:
        self._flush()
        other._flush()
        if np.shape(self.total) != np.shape(other.total):
            raise DataError(
                f"gram of {np.shape(self.total)} cannot be merged with {np.shape(other.total)}"
            )
        self.total = self.total + other.total
        self.rows += other.rows

    def state(self) -> dict[str, np.ndarray]:
        self._flush()
        return super().state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._partial, self._partial_rows = None, 0
        super().restore(state)

    def result(self) -> GramResult:
        self._seen()
        self._flush()
        if not np.ndim(self.total):
            raise DataError("gram saw only rows with masked elements", hint="take another axis")
        upper = np.triu(self.total)
        return GramResult(upper + np.triu(upper, 1).T, self.rows)
