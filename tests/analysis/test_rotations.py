"""The folding maths against loops, and every golden case that folds again in double precision."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import ir
import passes
from backends import reference
from ir.analysis.rotations import MatrixPort, matrix_stream, residual_streams
from ir.analysis.rotations.vectors import Vectors
from ir.edit import Edit
from ir.errors import PassError
from ir.fold import matrix as fold_matrix
from ir.fold.matrix import Change, changed, fold_maps, orthogonal, product
from passes.equivalent.rotate import random_orthogonal
from tests.helpers import feeds

GOLDEN = Path(__file__).parents[1] / "golden"
HITS = sorted(
    f for name in ("rotate", "center") for f in (GOLDEN / name).glob("*.txt")
    if not f.read_text().rstrip().endswith("unchanged")
)  # fmt: skip


def port(axis, length, size, part=None):
    return MatrixPort(None, 1, axis, length, size, part)  # type: ignore[arg-type]


def by_loops(x, matrix, axis, part):
    """out[.., first + b * size + j] = sum_i x[.., first + b * size + i] matrix[i, j]"""
    x, size = np.moveaxis(x.astype(np.float64), axis, -1), len(matrix)
    first, last = part or (0, x.shape[-1])
    out = x.copy()
    for place in np.ndindex(x.shape[:-1]):
        for start in range(first, last, size):
            for j in range(size):
                out[place][start + j] = sum(x[place][start + i] * matrix[i, j] for i in range(size))
    return np.moveaxis(out, -1, axis)


@pytest.mark.parametrize("piece", [1, 7, 1 << 19])
@pytest.mark.parametrize(
    ("shape", "axis", "size", "part"),
    [((5, 6), -1, 6, None), ((6, 5), -2, 3, None), ((9, 2), -2, 3, (3, 9)), ((4,), -1, 2, None),
     ((6, 3, 2, 2), -4, 3, None), ((2, 3, 8), -1, 4, (4, 8))],
)  # fmt: skip
def test_blocks_of_an_axis_take_the_matrix_as_loops_say(
    monkeypatch, shape, axis, size, part, piece
):
    monkeypatch.setattr(fold_matrix, "PIECE", piece)
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=shape), rng.normal(size=(size, size))
    each = Change(port(axis, shape[axis], size, part), lambda rows: rows @ matrix)
    np.testing.assert_allclose(changed(x, [each]), by_loops(x, matrix, axis, part), atol=1e-12)


def test_two_maps_meet_in_one_tensor_and_are_cast_once():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4)).astype(np.float32)
    a, b = random_orthogonal(6, rng), random_orthogonal(2, rng)
    changes = [Change(port(-2, 6, 6), lambda r: r @ a), Change(port(-1, 4, 2), lambda r: r @ b)]
    found = changed(x, changes)
    want = a.T @ x.astype(np.float64) @ np.kron(np.eye(2), b)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, want.astype(np.float32))


@pytest.mark.parametrize("x", [np.float64(3), np.array([3.0]), np.full((2, 1), 3.0)])
def test_one_number_for_all_channels_is_spread_first(x):
    matrix = np.arange(9.0).reshape(3, 3)
    found = changed(np.asarray(x), [Change(port(-1, 3, 3), lambda rows: rows @ matrix)])
    np.testing.assert_array_equal(found, np.broadcast_to([27.0, 36.0, 45.0], (*x.shape[:-1], 3)))


def test_numbers_beyond_their_type_are_an_error():
    x = np.full((2, 4), 60000, np.float16)
    with pytest.raises(PassError, match="not finite in float16"):
        changed(x, [Change(port(-1, 4, 4), lambda rows: rows * 2)])


def test_a_large_table_is_never_in_double_precision_as_a_whole():
    table = np.ones((20000, 256), np.float32)
    q = random_orthogonal(256, np.random.default_rng(0))
    tracemalloc.start()
    try:
        changed(table, [Change(port(-1, 256, 256), lambda rows: rows @ q)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert table.nbytes < peak < 2 * table.nbytes  # in float64 alone it would be twice as large


def doubled(text: str) -> str:
    """The graph of a golden case in double precision."""
    graph = text.partition("\n-->")[0]
    graph = "\n".join(line for line in graph.splitlines() if not line.startswith("#"))
    return graph.replace("f32", "f64")


def relative(a, b):
    return max(np.abs(a[k] - b[k]).max() / np.abs(a[k]).max() for k in a)


@pytest.mark.parametrize("file", HITS, ids=lambda f: f"{f.parent.name}/{f.stem}")
@pytest.mark.parametrize("hadamard", [True, False])
def test_golden_cases_are_exact_in_double_precision(file, hadamard):
    text = file.read_text()
    pipeline = text.splitlines()[0].lstrip("# ")
    if not hadamard:
        pipeline = pipeline.replace("rotate{", "rotate{hadamard=false,")
        pipeline = re.sub(r"rotate$", "rotate{hadamard=false}", pipeline)
    graph = ir.parse(doubled(text))
    data = feeds(graph, 1)
    result = passes.run(graph, pipeline, data=data)
    assert any(step.sites for step in result.report.steps)
    assert relative(reference.run(graph, data[0]), reference.run(result.graph, data[0])) < 1e-10


STRAIGHT = """graph g(%ids: i64[n]) -> %y {
  %e : f64[5,6] = const seed:1
  %x : f64[n,6] = Gather(%e, %ids) {axis=0}
  %w : f64[6,6] = const seed:2
  %b : f64[6] = const seed:3
  %d : f64[n,6] = Gemm(%x, %w, %b) {alpha=0.5, beta=2.0}
  %s : f64[n,6] = Add(%x, %d)
  %head : f64[3,6] = const seed:4
  %y : f64[n,3] = Gemm(%s, %head) {transB=1}
}"""


def test_without_norms_any_invertible_matrix_folds():
    graph, plain = ir.parse(STRAIGHT), ir.parse(STRAIGHT)
    (stream,) = residual_streams(graph)
    assert not stream.norms
    matrix = np.random.default_rng(0).normal(size=(6, 6)) + 2 * np.eye(6)
    fold_maps([(stream, product(matrix))], Edit(graph, "test"), "mapped")
    ids = {"ids": np.array([0, 3, 4])}
    found, want = reference.run(graph, ids), reference.run(plain, ids)
    assert relative(want, found) < 1e-10
    node = next(n for n in graph.graph if n.outputs[0].name == "x.mapped")
    table = node.inputs[0].const_value.numpy()
    np.testing.assert_allclose(table, plain.graph.initializers["e"].const_value.numpy() @ matrix)


def test_a_stream_that_is_stopped_folds_nothing():
    graph = ir.parse(STRAIGHT)
    value = next(n for n in graph.graph if n.op_type == "Add").outputs[0]
    stream = matrix_stream(value, Vectors(1, 4))
    assert stream.blocked == "the number of channels of %s is not known"
    with pytest.raises(ValueError, match="not known"):
        fold_maps([(stream, orthogonal(lambda rows: rows))], Edit(graph, "test"), "mapped")
