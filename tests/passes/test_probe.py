"""What steps are measured on: whole batches from the front, no more than asked for."""

import numpy as np
import pytest

from passes.probe import first_samples


@pytest.mark.parametrize(
    ("sizes", "samples", "taken"),
    [((1, 1, 1, 1, 1), 3, 3), ((8, 8), 4, 1), ((2, 2, 2), 4, 2), ((1, 1), 9, 2), ((), 4, 0)],
)
def test_batches_are_taken_until_they_hold_enough(sizes, samples, taken):
    batches = [{"x": np.zeros((size, 3)), "t": np.zeros(())} for size in sizes]
    assert len(first_samples(batches, samples)) == taken


def test_scalars_count_as_one_sample():
    assert len(first_samples([{"t": np.zeros(())}] * 5, 3)) == 3
