"""Perplexity and its windows, divergence and overlap of logits, against slow obvious twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib.metrics.logits import Logits
from calib.metrics.perplexity import Perplexity, windows
from ir.errors import DataError


def probabilities(row: np.ndarray) -> list[float]:
    """Softmax by its definition, of small logits only."""
    total = sum(math.exp(x) for x in row)
    return [math.exp(x) / total for x in row]


def drawn(seed: int, rows: int = 150, ids: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two models; more rows than are worked on at a time."""
    rng = np.random.default_rng(seed)
    reference = 2 * rng.standard_normal((rows, ids))
    return reference, reference + rng.standard_normal((rows, ids))


@given(st.integers(2, 40), st.integers(2, 12), st.data())
def test_windows_score_no_token_twice(count: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    tokens = np.arange(count)  # an id is its place
    scored: list[int] = []
    for number, part in enumerate(windows(tokens, window, stride)):
        assert part.ids.tolist() == list(range(number * stride, number * stride + len(part.ids)))
        assert len(part.ids) <= window
        if number:
            assert part.targets[0] - part.ids[0] >= max(1, window - stride)
        logits = part.ids[:, None]  # the row that predicts an id is the one before it
        assert (part.scored(logits)[:, 0] + 1).tolist() == part.targets.tolist()
        scored += part.targets.tolist()
    unscored = range(0, count, window) if stride == window else [0]
    assert scored == [place for place in range(count) if place not in unscored]


def test_windows_as_usual() -> None:
    found = [(part.ids[0], len(part.ids), len(part.targets)) for part in windows(np.arange(20), 8)]
    assert found == [(0, 8, 7), (8, 8, 7), (16, 4, 3)]
    found = [(part.ids[0], part.first) for part in windows(np.arange(20), 8, 4)]
    assert found == [(0, 1), (4, 4), (8, 4), (12, 4)]


@pytest.mark.parametrize(("window", "stride", "tokens"), [(8, 9, 20), (8, 0, 20), (1, 1, 20)])
def test_windows_that_cannot_be(window: int, stride: int, tokens: int) -> None:
    with pytest.raises(DataError, match="apart"):
        list(windows(np.arange(tokens), window, stride))
    with pytest.raises(DataError, match="nothing to predict"):
        list(windows(np.arange(1), 8))


def test_perplexity_by_its_definition() -> None:
    logits, _ = drawn(0)
    targets = np.random.default_rng(1).integers(7, size=150)
    pairs = list(zip(logits, targets, strict=True))
    product = math.prod(probabilities(row)[target] ** (-1 / 150) for row, target in pairs)
    first, second = Perplexity(), Perplexity()
    first.add(logits[None, :100], targets[None, :100])
    second.add(torch.from_numpy(logits[100:]), torch.from_numpy(targets[100:]))
    found = first.merge(second).result()
    assert found.perplexity == pytest.approx(product, rel=1e-12)
    assert found.nll == pytest.approx(math.log(product), rel=1e-12)
    assert (found.tokens, found.windows) == (150, 2)
    assert found.low < found.perplexity < found.high


def test_perplexity_of_knowing_nothing_and_everything() -> None:
    nothing, everything = Perplexity(), Perplexity()
    nothing.add(np.full((9, 50), 3e4, np.float32), np.arange(9))
    everything.add(1000 * np.eye(9), np.arange(9))
    found = nothing.result()
    assert found.perplexity == pytest.approx(50)
    assert found.low == found.high == pytest.approx(50)
    assert everything.result().perplexity == pytest.approx(1)


def test_interval_is_of_windows() -> None:
    """Tokens of a window are alike here: tokens drawn one by one would look too sure."""
    figure = Perplexity()
    rng = np.random.default_rng(0)
    for nll in rng.normal(3, 0.5, 100):
        rest = math.log((1 - math.exp(-nll)) / 9)
        figure.add(np.tile([-nll] + [rest] * 9, (30, 1)), np.zeros(30, int))
    found = figure.result()
    width = math.log(found.high) - math.log(found.low)
    assert width == pytest.approx(2 * 1.96 * 0.5 / 10, rel=0.2)


@pytest.mark.parametrize("target", [-1, 7])
def test_perplexity_refuses(target: int) -> None:
    with pytest.raises(DataError, match="not one of 7 ids"):
        Perplexity().add(np.ones((1, 7)), [target])
    with pytest.raises(DataError, match="one row of logits per target"):
        Perplexity().add(np.ones((2, 7)), [1])
    with pytest.raises(DataError, match="nothing was scored"):
        Perplexity().result()


def test_divergence_and_overlap_by_their_definitions() -> None:
    reference, test = drawn(2)
    kl, shared, same = [], [], []
    for a, b in zip(reference, test, strict=True):
        p, q = probabilities(a), probabilities(b)
        kl.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
        best = [set(sorted(range(7), key=lambda i: -row[i])[:3]) for row in (a, b)]
        shared.append(len(best[0] & best[1]) / 3)
        same.append(list(a).index(max(a)) == list(b).index(max(b)))
    first, second = Logits(k=3), Logits(k=3)
    first.add(reference[:90].reshape(9, 10, 7), test[:90].reshape(9, 10, 7))
    second.add(torch.from_numpy(reference[90:]), torch.from_numpy(test[90:]))
    found = first.merge(second).result()
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-12)
    assert found.kl_99 == pytest.approx(np.quantile(kl, 0.99), rel=1e-12)
    assert found.top_k == pytest.approx(np.mean(shared))
    assert found.top_1 == pytest.approx(np.mean(same))
    assert 0.4 < found.top_1 < found.top_k < 1
    assert found.tokens == 150


def test_what_moves_no_probability_is_no_difference() -> None:
    reference, _ = drawn(3)
    figure = Logits(k=3)
    figure.add(reference, reference + 5)
    found = figure.result()
    assert abs(found.kl) < 1e-12
    assert (found.top_k, found.top_1) == (1, 1)


def test_broken_logits_agree_with_nothing() -> None:
    reference, test = drawn(4, rows=10)
    test = np.where(np.arange(10)[:, None] < 5, reference, np.nan)
    figure = Logits(k=3)
    figure.add(reference, test)
    found = figure.result()
    assert math.isnan(found.kl)
    assert (found.top_k, found.top_1) == (0.5, 0.5)


def test_logits_refuse() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        Logits().add(np.ones((2, 20)), np.ones((1, 20)))
    with pytest.raises(DataError, match="no 10 likeliest"):
        Logits().add(np.ones((2, 5)), np.ones((2, 5)))
    with pytest.raises(DataError, match="not finite"):
        Logits(k=1).add(np.array([[np.nan, 1]]), np.ones((1, 2)))
    with pytest.raises(DataError, match="joined"):
        Logits(k=1).merge(Logits(k=2))
    with pytest.raises(DataError, match="nothing was compared"):
        Logits().result()
