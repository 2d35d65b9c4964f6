"""Hadamard matrices against their definition, transforms against the dense product."""

import numpy as np
import pytest

from ir import hadamard

ORDERS = [1, 2, 4, 8, 12, 20, 24, 28, 36, 40, 44, 52, 60, 68, 76, 104, 108, 140, 148, 156, 172, 576]
"""Every construction, alone and times a power of two; 576 = 36 * 16."""


@pytest.mark.parametrize("n", ORDERS)
def test_rows_are_orthonormal_and_of_one_magnitude(n):
    h = hadamard.matrix(n)
    np.testing.assert_allclose(h @ h.T, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(np.abs(h), 1 / np.sqrt(n))


@pytest.mark.parametrize("n", [*ORDERS, 768, 896, 1536])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_transform_is_the_dense_product_along_the_axis(n, axis):
    rng = np.random.default_rng(n)
    shape = [2, 3, 2]
    shape[axis] = n
    x = rng.standard_normal(shape)
    want = np.moveaxis(np.moveaxis(x, axis, -1) @ hadamard.matrix(n), -1, axis)
    found = hadamard.transform(x, axis)
    np.testing.assert_allclose(found, want, atol=1e-11)
    np.testing.assert_allclose(hadamard.transform(found, axis, inverse=True), x, atol=1e-11)
    if n > 2:
        assert np.abs(found - x).max() > 0.1  # it does something


def test_the_inverse_is_the_transposed_one_where_the_matrix_is_not_symmetric():
    h = hadamard.matrix(12)
    assert np.abs(h - h.T).max() > 0.1
    x = np.random.default_rng(0).standard_normal((2, 12))
    np.testing.assert_allclose(hadamard.transform(x, inverse=True), x @ h.T, atol=1e-12)
    np.testing.assert_allclose(hadamard.transform(x), x @ h, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "m"),
    [(768, 12), (2560, 20), (896, 28), (9216, 36), (4864, 76), (13824, 108), (8960, 140),
     (18944, 148), (6656, 52), (5504, 172), (11008, 172), (4096, 1), (1, 1), (2, 1)],
)  # fmt: skip
def test_factors_of_widths_of_real_models(n, m):
    assert hadamard.factors(n) == (m, n // m)
    assert hadamard.refusal(n) == ""


def test_orders_without_a_matrix_are_refused_in_words():
    assert "not a multiple of 4" in hadamard.refusal(6)
    assert "23 * 2^j that divides 92" in hadamard.refusal(92)
    assert hadamard.refusal(0)
    for n in (3, 6, 92):
        with pytest.raises(ValueError, match="Hadamard matrix"):
            hadamard.transform(np.ones((2, n)))


def test_blocks_are_transformed_alone():
    x = np.random.default_rng(0).standard_normal((3, 60))
    assert hadamard.largest_block(60) == 4
    want = x @ np.kron(np.eye(15), hadamard.matrix(4))
    np.testing.assert_allclose(hadamard.transform(x, block=4), want, atol=1e-12)
    tall = hadamard.transform(np.ascontiguousarray(x.T), 0, block=4)
    np.testing.assert_allclose(tall, want.T, atol=1e-12)
    with pytest.raises(ValueError, match="blocks of 8 do not divide 60"):
        hadamard.transform(x, block=8)


def test_precision_and_type_are_the_arguments():
    x = np.random.default_rng(0).standard_normal((4, 4096))
    narrow = hadamard.transform(x.astype(np.float32))
    assert narrow.dtype == np.float32
    assert hadamard.transform(x.astype(np.float16)).dtype == np.float16
    np.testing.assert_allclose(narrow, hadamard.transform(x), atol=1e-5)
    np.testing.assert_allclose((narrow**2).sum(1), (x**2).sum(1), rtol=1e-5)


def test_signs_are_drawn():
    drawn = hadamard.signs(1000, np.random.default_rng(0))
    assert set(drawn) == {-1.0, 1.0}
    assert abs(drawn.sum()) < 150
    assert (drawn != hadamard.signs(1000, np.random.default_rng(1))).any()


def test_incoherence_of_a_spiked_weight_falls():
    """Card rotations: one entry of 50 and one row times 5 in 256 x 256 normal numbers."""
    w = np.random.default_rng(0).standard_normal((256, 256))
    w[3] *= 5
    w[7, 9] = 50
    both = hadamard.transform(hadamard.transform(w, 0), 1)
    mu = [np.abs(m).max() * 256 / np.linalg.norm(m) for m in (w, both)]
    assert mu[0] > 40
    assert mu[1] < 8
