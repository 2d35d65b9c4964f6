"""Word errors against a slow twin; repetition loops; the bootstrap; degraded speech."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.degrade.speech import add_noise, change_speed
from calib.metrics.words import WordErrors, interval, loop_start, word_errors
from ir.errors import DataError


def distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """The definition: try a deletion, an insertion and a substitution at every place."""

    @cache
    def rest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return len(a) - i + len(b) - j
        return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (a[i] != b[j]))

    return rest(0, 0)


WORDS = st.lists(st.sampled_from("abc"), max_size=7).map(tuple)


@given(WORDS, WORDS)
def test_fewest_edits(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    pytest.importorskip("jiwer")
    assert word_errors(a, b) == distance(a, b)


@pytest.mark.parametrize(
    ("items", "start"),
    [
        ("aabab", None),
        ("xaaaa", None),  # a digit said four times
        ("xaaaaaaaa", 1),
        ("xyabcabcabcabc", 2),
        ("abcabcabc", None),
        ("aaaaaaaax", None),
    ],
)
def test_loop_at_the_end(items: str, start: int | None) -> None:
    assert loop_start(items) == start


def test_counts_are_joined_and_normalised() -> None:
    pytest.importorskip("whisper_normalizer")
    first, second = WordErrors(), WordErrors()
    first.add("Mister Dashwood's twenty-one colours!", "mr. dashwood's 21 colors")
    second.add("ten of clubs", "ten clubs clubs")
    second.add("he was", "so " * 9)
    found = first.merge(second).result()
    assert first.errors == [0, 1, 9]
    assert (found.clips, found.loops) == (3, pytest.approx(1 / 3))
    assert found.rate == 10 / found.words
    assert found.median == pytest.approx(1 / 3)
    assert found.low <= found.rate <= found.high


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="no transcript"):
        WordErrors().result()


def test_interval_has_the_width_of_a_binomial() -> None:
    errors = np.random.default_rng(0).integers(0, 2, 400)
    low, high = interval(errors, np.ones(400, int), 0)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)
    assert (low, high) == interval(errors, np.ones(400, int), 0)


def test_noise_has_the_stated_ratio() -> None:
    wave = np.sin(np.arange(16000) / 7).astype(np.float32)
    noisy = add_noise(wave, 10.0, np.random.default_rng(0))
    ratio = np.mean(wave**2) / np.mean((noisy - wave) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.01)
    assert abs(np.corrcoef(wave, noisy - wave)[0, 1]) < 0.05
    with pytest.raises(DataError, match="silence"):
        add_noise(np.zeros(9, np.float32), 10.0, np.random.default_rng(0))


def test_speed_changes_length_and_pitch() -> None:
    wave = np.sin(2 * np.pi * 400 * np.arange(16000) / 16000).astype(np.float32)
    fast = change_speed(wave, 1.25)
    assert len(fast) == 12800
    assert np.abs(np.fft.rfft(fast)).argmax() * 16000 / 12800 == pytest.approx(500, abs=2)
    with pytest.raises(DataError, match="speed"):
        change_speed(wave, 9.0)
