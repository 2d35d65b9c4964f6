"""What steps are measured on: samples from the front, no more than asked for."""

import numpy as np
import pytest

import ir
from passes.probe import first_samples

FREE = ir.parse("graph g(%x: f32[n,3]) -> %y {\n  %y : f32[n,3] = Neg(%x)\n}")
FIXED = ir.parse("graph g(%x: f32[8,3]) -> %y {\n  %y : f32[8,3] = Neg(%x)\n}")


def batches(sizes):
    return [{"x": np.full((size, 3), number)} for number, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "samples", "taken"),
    [((1, 1, 1, 1, 1), 3, [1, 1, 1]), ((8, 8), 4, [4]), ((2, 2, 2), 4, [2, 2]),
     ((2, 8), 4, [2, 2]), ((1, 1), 9, [1, 1]), ((), 4, [])],
)  # fmt: skip
def test_batches_are_cut_to_what_is_asked_for(sizes, samples, taken):
    found = first_samples(batches(sizes), samples, FREE)
    assert [feeds["x"].shape for feeds in found] == [(size, 3) for size in taken]
    assert [feeds["x"][0, 0] for feeds in found] == list(range(len(taken)))


TURNED = ir.parse("graph g(%x: f32[n,3]) -> %y {\n  %y : f32[3,n] = Transpose(%x) {perm=[1, 0]}\n}")


@pytest.mark.parametrize("graph", [FIXED, TURNED, None], ids=["fixed", "turned", "not asked"])
def test_other_batches_stay_whole(graph):
    found = first_samples(batches((8, 8, 8)), 9, graph)
    assert [feeds["x"].shape for feeds in found] == [(8, 3), (8, 3)]


def test_inputs_that_count_differently_stay_whole():
    feeds = {"x": np.zeros((8, 3)), "t": np.zeros(2)}
    assert first_samples([feeds], 4, FREE) == [feeds]


def test_scalars_count_as_one_sample():
    assert len(first_samples([{"t": np.zeros(())}] * 5, 3)) == 3
