"""The Euler sampler against flows whose end is known, and against loops."""

from __future__ import annotations

import numpy as np
import pytest

from models import samplers

LABELS = np.array([0, 1, 2], np.int64)
NONE = 9


def start() -> np.ndarray:
    return samplers.noise(3, (1, 2, 2), 0)


def curved(x, t, label):
    """Depends on everything it is given."""
    return 0.3 * x * (1 + t[:, None, None, None]) + 0.1 * label[:, None, None, None].astype("f4")


@pytest.mark.parametrize("steps", [1, 7])
def test_a_straight_flow_ends_on_its_picture_in_any_number_of_steps(steps):
    picture, x = np.full((3, 1, 2, 2), 0.25, np.float32), start()
    found = samplers.sample(lambda *_: x - picture, x, LABELS, steps, 1.0, no_class=NONE)
    np.testing.assert_allclose(found, picture, atol=1e-6)


def test_against_a_loop_over_pictures_and_steps():
    want = start().astype(np.float64)
    for i, label in enumerate(LABELS):
        for step in range(5):
            t = 1 - step / 5
            named, plain = (0.3 * want[i] * (1 + t) + 0.1 * c for c in (label, NONE))
            want[i] -= (plain + 3 * (named - plain)) / 5
    found = samplers.sample(curved, start(), LABELS, 5, 3.0, no_class=NONE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_trajectories_are_what_the_velocity_was_asked():
    asked = []

    def spy(x, t, label):
        asked.extend(zip(x, t, label, strict=True))
        return curved(x, t, label)

    feeds = list(samplers.trajectories(spy, start(), LABELS, 4, 2.0, no_class=NONE))
    assert len(feeds) == len(asked) == 4 * 2 * 3
    for feed, (x, t, label) in zip(feeds, asked, strict=True):
        np.testing.assert_array_equal(feed["x"][0], x)
        assert (feed["t"].tolist(), feed["label"].tolist()) == ([t], [label])
        assert feed["t"].dtype == np.float32
    assert [f["label"].item() for f in feeds[:6]] == [0, 1, 2, NONE, NONE, NONE]


def test_guidance_one_asks_only_with_the_class():
    feeds = list(samplers.trajectories(curved, start(), LABELS, 4, 1.0, no_class=NONE))
    assert len(feeds) == 12
    assert NONE not in {f["label"].item() for f in feeds}


def test_noise_is_seeded_and_a_longer_draw_begins_alike():
    np.testing.assert_array_equal(
        samplers.noise(5, (1, 2, 2), 1)[:3], samplers.noise(3, (1, 2, 2), 1)
    )
    assert not np.array_equal(samplers.noise(3, (1, 2, 2), 1), samplers.noise(3, (1, 2, 2), 2))


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps is 0"):
        samplers.sample(curved, start(), LABELS, 0, 1.0, no_class=NONE)
