"""Rows of a batch that hold padding: nobody reads what a model says of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ir.analysis.masks import padding_inputs
from ir.graph import Graph


def valid_rows(graph: Graph, feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Where a batch holds tokens rather than padding (bool, of the padding input's shape); None
    when the graph has no such input, or the feeds fill it with other numbers than 0 and 1."""
    for name in padding_inputs(graph):
        marks = np.asarray(feeds.get(name, ()))
        if marks.ndim == 2 and marks.any() and bool(np.isin(marks, (0, 1)).all()):
            return marks.astype(bool)
    return None


def without_padding(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows of valid tokens, when the leading axes are those of the marks; else the array."""
    return array[rows] if array.shape[: rows.ndim] == rows.shape else array
