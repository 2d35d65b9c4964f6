"""The measure behind every promise: what counts as the same, and what never does."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ir
from ir.edit import Edit
from passes import evaluate
from passes.evaluate import TOLERANCE, Difference, difference, relative_difference
from tests.helpers import MLP, Break, apply, feeds

A = np.array([1.0, -4.0, 2.0], np.float32)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_zeros_never_pass(kind):
    assert relative_difference(A.astype(kind), np.zeros(3, kind)) == 1.0 > TOLERANCE
    assert relative_difference(np.zeros(3, kind), A.astype(kind)) == np.inf
    assert relative_difference(np.zeros(3, kind), np.zeros(3, kind)) == 0.0
    assert relative_difference(A.astype(kind), A.astype(kind)) == 0.0


def test_the_largest_gap_over_the_largest_magnitude():
    assert relative_difference(A, A + np.float32([0, 0.5, 1])) == pytest.approx(0.25)
    assert relative_difference(A * 1000, A * 1000 + 1) == pytest.approx(1 / 4000)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_be_so_on_both_sides(odd):
    holed = A.copy()
    holed[1] = odd
    assert relative_difference(holed, A) == np.inf
    assert relative_difference(A, holed) == np.inf
    assert relative_difference(holed, holed) == 0.0
    assert relative_difference(np.full(3, odd), np.full(3, odd)) == 0.0
    if np.isinf(odd):
        assert relative_difference(holed, -holed) == np.inf


@pytest.mark.parametrize(
    "other", [A[:2], A[None], A.astype(np.float64), A.astype(np.int32), np.zeros(0, np.float32)]
)
def test_other_shapes_and_types_never_pass(other):
    assert relative_difference(A, other) == np.inf
    assert relative_difference(other, A) == np.inf


def test_whole_numbers_booleans_and_texts_must_be_equal():
    for array in (np.array([1, 2]), np.array([True, False]), np.array(["a", "b"], object)):
        assert relative_difference(array, array.copy()) == 0.0
        assert relative_difference(array, array[::-1].copy()) == np.inf
    big = np.array([2**62, 1])
    assert relative_difference(big, big + 1) == np.inf


def test_imaginary_parts_count():
    one = np.array([1 + 1j, 2])
    assert relative_difference(one, one.real.astype(complex)) == pytest.approx(0.5)


def test_empty_outputs_are_equal():
    assert relative_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0


@given(st.floats(-(2.0**99), 2.0**99, width=32), st.floats(-(2.0**99), 2.0**99, width=32))
def test_nothing_passes_that_differs_by_more_than_the_tolerance(a, b):
    found = relative_difference(np.float32([a]), np.float32([b]))
    if a == b:
        assert found == 0.0
    else:
        assert found == (abs(a - b) / abs(a) if a else np.inf)


def test_the_worst_output_over_all_probes_is_named():
    before = [{"p": A, "q": A}, {"p": A, "q": A}]
    after = [{"p": A, "q": A * 1.01}, {"p": A * 1.5, "q": A}]
    assert difference(before, after) == Difference("p", pytest.approx(0.5))
    assert not difference(before, after).ok
    assert difference(before, before).ok
    broken = [{"p": A * np.nan, "q": A}, {"p": A, "q": A}]
    assert difference(before, broken).output == "p"
    assert not difference(before, broken).ok
    with pytest.raises(ValueError, match="zip"):
        difference(before, [{"p": A}])


def test_decibels_over_all_probes():
    noisy = [{"y": A * 1.1, "k": np.array([1])}, {"y": A, "k": np.array([2])}]
    exact = [{"y": A, "k": np.array([1])}, {"y": A, "k": np.array([3])}]
    assert evaluate.sqnr(exact, noisy) == {
        "y": pytest.approx(10 * np.log10(2 * 21 / 0.21), abs=1e-3)
    }
    assert evaluate.sqnr(exact, [{"y": 0 * A, "k": A}] * 2) == {"y": 0.0}


def test_masked_outputs_have_decibels_too():
    masked = np.append(A, -np.inf).astype(np.float32)
    shifted = np.append(A * 1.1, -np.inf).astype(np.float32)
    found = evaluate.sqnr([{"y": masked}], [{"y": shifted}])
    assert found == {"y": pytest.approx(20, abs=1e-3)}
    lost = np.append(A * 1.1, 7).astype(np.float32)
    assert np.isnan(evaluate.sqnr([{"y": masked}], [{"y": lost}])["y"])


def test_means_and_worst():
    assert evaluate.mean_db({"a": 10.0, "b": 30.0}) == 20.0
    assert evaluate.worst_db({"a": 10.0, "b": 30.0}) == 10.0
    assert evaluate.mean_db({"a": np.inf, "b": 40.0}) == (evaluate.LIMIT_DB + 40) / 2
    assert evaluate.worst_db({"a": np.nan, "b": 40.0}) == -evaluate.LIMIT_DB
    assert evaluate.mean_db({}) == evaluate.worst_db({}) == evaluate.LIMIT_DB


# graphs -------------------------------------------------------------------------------------------


def broken(weight):
    from passes import Check, Pipeline

    return apply(MLP, Pipeline(Break(weight)), 1, check=Check.NONE).graph


@pytest.mark.parametrize(("weight", "value"), [("w1", "h"), ("b1", "h"), ("w2", "m"), ("b2", "y")])
def test_the_first_value_that_differs(weight, value):
    graph = ir.parse(MLP)
    (data,) = feeds(graph, 1)
    after = broken(weight)
    place = evaluate.first_divergence(graph, after, data)
    assert (place.value, place.node.outputs[0].name) == (value, value)
    assert place.relative > 0.01
    assert str(place).startswith(f"%{value} of ")
    assert evaluate.first_divergence(graph, graph, data) is None


def test_renamed_values_are_not_compared():
    graph = ir.parse(MLP)
    after = broken("w1")
    edit = Edit(after)
    edit.rename(after.graph.node("h").outputs[0], "h.scaled")
    place = evaluate.first_divergence(graph, after, feeds(graph, 1)[0])
    assert place.value == "r"


def test_double_precision_tells_rounding_from_a_defect():
    """(x + 1e4) - 1e4 loses three digits of x in float32 and none that count in double."""
    head = "graph g(%x: f32[n,8]) -> %y {\n"
    plain = ir.parse(head + "%y : f32[n,8] = Identity(%x)\n}")
    there = ir.parse(
        head + "%k : f32[] = const 1e4\n%h : f32[n,8] = Add(%x, %k)\n%y : f32[n,8] = Sub(%h, %k)\n}"
    )
    data = feeds(plain)
    narrow = difference(*(evaluate.outputs_of(g, data) for g in (plain, there)))
    assert not narrow.ok
    assert evaluate.same_function(plain, there, data).ok
    assert not evaluate.same_function(ir.parse(MLP), broken("w1"), data).ok
