"""adapt_rotation: the matrices, what is chosen by which figure, and that nothing moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ir
from ir.errors import VerifyError
from passes.equivalent import adapt_rotation
from passes.equivalent.adapt_rotation import greedy, own_rotation, spreading, zigzag
from tests.helpers import apply

TEXT = """graph g(%x: f32[n,16]) -> %y {
  %s : f32[16] = const [1, 1, 1, 50, 1, 1, 1, 1, 1, 1, 1, 30, 1, 1, 1, 1]
  %h : f32[n,16] = Mul(%x, %s)
  %w : f32[16,6] = const seed:1
  %y : f32[n,6] = MatMul(%h, %w)
}"""


def outlying(width: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.standard_normal((64, width))
    rows[:, rng.permutation(width)[:3]] *= 50
    return rows


@given(st.integers(1, 12))
@settings(deadline=None)
def test_the_reflection_is_even_in_its_first_row_and_column(size):
    found = spreading(size)
    assert np.abs(found @ found.T - np.eye(size)).max() < 1e-12
    assert np.abs(found[0] - size**-0.5).max() < 1e-12
    assert np.abs(found[:, 0] - size**-0.5).max() < 1e-12


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_zigzag_deals_every_channel_once_and_the_widest_apart(each, blocks, seed):
    spans = np.random.default_rng(seed).random(each * blocks)
    order = zigzag(spans, blocks)
    hands: list[list[int]] = [[] for _ in range(blocks)]
    for place, channel in enumerate(sorted(range(len(spans)), key=lambda i: -spans[i])):
        turn, seat = divmod(place, blocks)
        hands[seat if turn % 2 == 0 else blocks - 1 - seat].append(channel)
    assert order.tolist() == [channel for hand in hands for channel in hand]


@given(st.integers(1, 16), st.integers(0, 30), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_greedy_is_orthogonal_and_never_spans_more(size, steps, seed):
    rng = np.random.default_rng(seed)
    rows = outlying(max(size, 3), rng)[:, :size]
    found = greedy(rows, steps, rng)
    assert np.abs(found @ found.T - np.eye(size)).max() < 1e-10
    assert np.ptp(rows @ found) <= np.ptp(rows) + 1e-9
    if steps == 0:
        assert (found == np.eye(size)).all()


def test_its_own_rotation_flattens_outlying_channels():
    rng = np.random.default_rng(0)
    rows = outlying(32, rng)
    found = own_rotation(rows, 8, 64, rng)
    assert np.abs(found @ found.T - np.eye(32)).max() < 1e-10
    assert np.abs(rows @ found).max() < 0.6 * np.abs(rows).max()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ("threshold=1000.0", "1 inputs by Hadamard, 0 by their own rotation"),
        ("threshold=1.0", "0 inputs by Hadamard, 1 by their own rotation"),
        ("threshold=10.0,ratio=true", "0 inputs by Hadamard, 1 by their own rotation"),
        ("threshold=200.0,ratio=true", "1 inputs by Hadamard, 0 by their own rotation"),
    ],
)
def test_the_figure_chooses_the_matrix(options, kind):
    result = apply(ir.parse(TEXT), f"adapt_rotation{{block=8,a=i4@1x0*f32,{options}}}", 4)
    step = result.report.steps[0]
    assert step.notes == [kind]
    assert step.difference <= 1e-5


def test_a_matrix_that_is_not_orthogonal_is_caught(monkeypatch):
    real = own_rotation
    monkeypatch.setattr(adapt_rotation, "own_rotation", lambda *a: real(*a) * 1.001)
    with pytest.raises(VerifyError, match="moved output"):
        apply(ir.parse(TEXT), "adapt_rotation{block=8,a=i4@1x0*f32}", 4)


def test_blocks_that_do_not_divide_are_refused():
    step = apply(ir.parse(TEXT), "adapt_rotation{block=5}", 4).report.steps[0]
    assert [s.reason for s in step.skips] == ["blocks of 5 do not divide its 16 inputs"]
