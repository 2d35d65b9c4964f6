"""Measures of error against their formulas, and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calib import metrics
from ir.errors import DataError


def pair(seed=0, rows=6):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((rows, 5))
    return reference, reference + 0.1 * rng.standard_normal((rows, 5))


def test_formulas():
    reference, test = pair()
    noise = reference - test
    assert metrics.sqnr_db(reference, test) == pytest.approx(
        20 * math.log10(np.linalg.norm(reference) / np.linalg.norm(noise))
    )
    angle = (reference * test).sum() / np.linalg.norm(reference) / np.linalg.norm(test)
    assert metrics.cosine(reference, test) == pytest.approx(angle)
    assert metrics.max_abs(reference, test) == np.abs(noise).max()


def test_edges():
    reference, _ = pair()
    zeros = np.zeros_like(reference)
    assert metrics.sqnr_db(reference, reference) == math.inf
    assert metrics.sqnr_db(reference, zeros) == 0.0
    assert metrics.cosine(reference, zeros) == 0.0
    assert metrics.cosine(reference, -reference) == -1.0
    assert metrics.sqnr_db(zeros, reference) == -math.inf
    assert metrics.sqnr_db(zeros, zeros) == math.inf
    broken = reference.copy()
    broken[0, 0] = np.nan
    assert math.isnan(metrics.sqnr_db(reference, broken))
    assert math.isnan(metrics.max_abs(reference, broken))


def test_accumulators_equal_one_pass_and_merge():
    parts = [pair(seed, rows) for seed, rows in ((0, 6), (1, 2), (2, 9))]
    whole = [np.concatenate(side) for side in zip(*parts, strict=True)]
    found, other = metrics.Difference(), metrics.Difference()
    found.add(*parts[0])
    for part in parts[1:]:
        other.add(*part)
    got, expected = found.merge(other).result(), metrics.compare(*whole)
    assert got.sqnr_db == pytest.approx(expected.sqnr_db)
    assert got.cosine == pytest.approx(expected.cosine)
    assert (got.max_abs, got.elements) == (expected.max_abs, expected.elements)


def test_agreement():
    reference, test = pair()
    expected = np.mean([np.argmax(a) == np.argmax(b) for a, b in zip(reference, test, strict=True)])
    assert metrics.agreement(reference, test) == expected
    assert metrics.agreement(reference, -reference) == 0.0
    assert metrics.agreement(reference, np.full_like(reference, np.nan)) == 0.0
    one, two = metrics.Agreement(), metrics.Agreement()
    one.add(reference[:2], test[:2])
    two.add(reference[2:], test[2:])
    assert one.merge(two).result() == expected


def test_torch_half_types_and_bad_input():
    tensor = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert metrics.sqnr_db(tensor.float(), tensor) == math.inf
    with pytest.raises(DataError, match=r"reference \[2\], test \[3\]"):
        metrics.sqnr_db(np.ones(2), np.ones(3))
    with pytest.raises(DataError, match="reference holds"):
        metrics.sqnr_db([np.inf], [1.0])
    with pytest.raises(DataError, match="nothing was compared"):
        metrics.Difference().result()
