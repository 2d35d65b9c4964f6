"""Captured graphs compute what their source does, at the example's sizes and at others.

The DiT's sampler, SmolLM2's prefill and steps, and the tiny models have tests of their own.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.reference import drawn, graph, params, source

LARGEST = 1e-5
"""Of an output's largest magnitude: float32, whose sums may run in another order."""


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    assert np.isfinite(wanted).all()
    size = np.abs(wanted).max()
    assert size > 0
    return float(np.abs(found.astype(np.float64) - wanted).max() / size)


@pytest.mark.parametrize("name", params())
def test_graph_is_its_source_at_two_sizes(name, tmp_path):
    ours, theirs = graph(name, tmp_path), source(name)
    feeds = drawn(name)
    assert len(feeds) == 2  # every reference model has a free axis
    for feed in feeds:
        gaps = [relative(a, b) for a, b in zip(ours(feed), theirs(feed), strict=True)]
        assert max(gaps) <= LARGEST, (name, gaps)


def test_another_function_is_told_apart():
    feed = drawn("fashion_cnn")[0]
    (wanted,) = source("fashion_cnn")(feed)
    assert relative(wanted * np.float32(1 + 1e-4), wanted) > LARGEST
    assert relative(np.zeros_like(wanted), wanted) == 1
