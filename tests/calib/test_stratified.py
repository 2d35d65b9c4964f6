"""Feeds spread evenly over a key's range."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.data.stratified import choose, parts_of, stratified
from ir.errors import DataError


def feeds(keys) -> list[dict[str, np.ndarray]]:
    return [{"t": np.array([k], np.float32), "id": np.array(i)} for i, k in enumerate(keys)]


def time(feed: dict[str, np.ndarray]) -> float:
    return feed["t"].item()


def test_every_step_of_a_sampler_is_drawn_alike():
    times = np.repeat(np.linspace(1, 0, 21)[:-1], 10)
    found = stratified(iter(feeds(times)), 60, time, strata=20)
    assert set(Counter(map(time, found)).values()) == {3}
    assert len(Counter(map(time, found))) == 20
    assert len({int(f["id"]) for f in found}) == 60


def test_rare_long_inputs_get_their_share():
    lengths = [1] * 900 + [50] * 95 + [100] * 5
    found = Counter(map(time, stratified(feeds(lengths), 12, time, strata=3)))
    assert found == {1: 4, 50: 4, 100: 4}


def test_an_exhausted_stratum_leaves_its_share_to_the_others():
    found = Counter(map(time, stratified(feeds([0] * 9 + [1] * 2 + [2] * 9), 14, time, strata=3)))
    assert found == {0: 6, 1: 2, 2: 6}


def test_fewer_feeds_than_strata_still_span_the_range():
    found = sorted(map(time, stratified(feeds(range(100)), 4, time, strata=20)))
    assert [int(k) // 25 for k in found] == [0, 1, 2, 3]


def test_equal_seeds_draw_equal_feeds_and_others_do_not():
    one, two, other = (
        [int(f["id"]) for f in stratified(feeds(range(500)), 50, time, seed=s)] for s in (1, 1, 2)
    )
    assert one == two
    assert one != other


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.integers(1, 9), st.data())
def test_against_rounds_of_taking_one_from_each(keys, strata, data):
    n = data.draw(st.integers(1, len(keys)))
    parts = parts_of(np.array(keys), strata)
    left = Counter(parts.tolist())
    want: Counter[int] = Counter()
    while sum(want.values()) < n:  # whole rounds only; the last one is cut anywhere
        for part in left:
            want[part] += want[part] < left[part]
    found = choose(np.array(keys), n, strata, np.random.default_rng(0))
    assert len(set(found)) == n
    got = Counter(parts[found].tolist())
    assert all(want[p] - 1 <= got[p] <= want[p] for p in left)


@pytest.mark.parametrize(
    ("keys", "n", "cause"),
    [([1, 2], 3, "3 feeds wanted, 2 given"), ([1, np.nan], 1, "not finite"), ([1], 0, "n is 0")],
)
def test_what_cannot_be_drawn_is_said(keys, n, cause):
    with pytest.raises(DataError, match=cause):
        stratified(feeds(keys), n, time)
