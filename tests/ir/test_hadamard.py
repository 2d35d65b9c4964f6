"""Hadamard matrices: orthogonal, of equal entries; the fast product is the product."""

import numpy as np
import pytest

from ir import hadamard

SIZES = [1, 2, 4, 12, 16, 20, 24, 28, 36, 64, 76, 108, 140, 148, 384, 576, 768, 896]


@pytest.mark.parametrize("n", SIZES)
def test_rows_are_orthogonal_and_all_entries_equally_large(n):
    h = hadamard.matrix(n)
    np.testing.assert_allclose(h @ h.T, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(np.abs(h), 1 / np.sqrt(n))
    assert hadamard.known(n)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_transform_is_the_product_along_the_axis(n, axis):
    shape = [2, 3, 2]
    shape[axis] = n
    x = np.random.default_rng(n).normal(size=shape)
    want = np.moveaxis(np.moveaxis(x, axis, -1) @ hadamard.matrix(n), -1, axis)
    np.testing.assert_allclose(hadamard.transform(x, axis), want, atol=1e-12)


@pytest.mark.parametrize("n", [3, 6, 10, 15, 52])
def test_sizes_without_a_construction_say_so(n):
    assert not hadamard.known(n)
    with pytest.raises(ValueError, match=f"size {n} is known"):
        hadamard.matrix(n)


def test_signs_are_signs_and_repeat():
    a, b = (hadamard.signs(100, np.random.default_rng(0)) for _ in range(2))
    assert set(a) == {-1.0, 1.0}
    np.testing.assert_array_equal(a, b)
