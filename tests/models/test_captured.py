"""Captured graphs compute what their source does, at the example's sizes and at others.

The DiT's sampler, SmolLM2's prefill and steps, and the tiny models have tests of their own.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import sources
from benchmarks.captured import differences
from benchmarks.equal import gap
from tests.models.reference import captured, drawn, module, params

LARGEST = 1e-5
"""Of an output's largest magnitude: float32, whose sums may run in another order."""


@pytest.mark.parametrize("name", params())
def test_graph_is_its_source_at_two_sizes(name):
    gaps = differences(module(name), captured(name))
    assert len(gaps) == 2  # every reference model has a free axis
    assert max(gaps) <= LARGEST, gaps


def test_another_function_is_told_apart():
    feed = drawn("fashion_cnn")[0]
    (wanted,) = sources.source(module("fashion_cnn"))(feed)
    assert gap(wanted, wanted * np.float32(1 + 1e-4), "y") > LARGEST
    assert gap(wanted, np.zeros_like(wanted), "y") == 1
    with pytest.raises(ValueError, match="not finite at the same places"):
        gap(wanted, wanted * np.float32(np.inf), "y")
