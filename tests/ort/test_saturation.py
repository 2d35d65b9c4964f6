"""The pair rule against a model of the instruction it comes from."""

import numpy as np
import pytest

from backends.ort.saturation import conv_rows, depthwise, saturates, unsigned


def maddubs(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """vpmaddubsw: u8 [2] x i8 [2] per lane -> i16, added with saturation."""
    total = (values.astype(np.int64) * weights).sum(-1)
    return np.clip(total, -32768, 32767)


def test_the_rule_is_exactly_where_the_instruction_saturates():
    codes = np.arange(-128, 128)
    first, second = np.meshgrid(codes, codes, indexing="ij")
    pairs = np.stack([first, second], -1).reshape(-1, 2)
    corners = np.array([[0, 0], [0, 255], [255, 0], [255, 255]])
    exact = (corners[:, None] * pairs).sum(-1)
    wrong = (maddubs(corners[:, None], pairs) != exact).any(0)
    told = np.array([saturates(pair[:, None]) for pair in pairs])
    assert (told == wrong).all()
    assert 0 < wrong.sum() < len(pairs)


@pytest.mark.parametrize("inputs", [1, 2, 7])
def test_pairs_are_rows_two_by_two(inputs):
    rows = np.zeros((8, 3), np.int8)
    rows[inputs] = rows[inputs ^ 1] = 100
    assert saturates(rows)
    rows[inputs ^ 1] = -100
    assert not saturates(rows)
    rows = np.zeros((8, 3), np.int8)
    rows[1] = rows[2] = 100  # neighbours, but of two pairs
    assert not saturates(rows)


def test_the_last_of_an_odd_count_has_no_partner():
    assert not saturates(np.full((1, 4), 127, np.int8))
    assert saturates(np.full((3, 4), 127, np.int8))


def test_a_convolution_pairs_channels_first_then_width_then_height():
    weight = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    rows = conv_rows(weight)
    order = [(c, i, j) for i in range(2) for j in range(2) for c in range(3)]
    slow = [[weight[n, c, i, j] for n in range(2)] for c, i, j in order]
    assert rows.tolist() == slow


def test_depthwise_means_one_in_and_one_out():
    assert depthwise((8, 1, 3, 3), 8)
    assert not depthwise((16, 1, 3, 3), 8)
    assert not depthwise((8, 2, 3, 3), 4)
    assert not depthwise((8, 1, 3, 3), 1)


def test_unsigned_codes_mean_the_same():
    codes = np.arange(-128, 128, dtype=np.int8)
    assert (unsigned(codes).astype(int) - 128 == codes).all()
