"""The clean-up benchmark tells equal from different and broken, and draws feeds of two sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import cleanup, equal, sizes
from benchmarks.cases import _axes
from benchmarks.measure import session


def model(path: Path, nodes, rank: int = 2, **constants) -> Path:
    """y of x f32[n, 4] by these nodes."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    tensors = [numpy_helper.from_array(np.asarray(a), k) for k, a in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def scaled(path: Path, factor: float) -> Path:
    return model(path, [helper.make_node("Mul", ["x", "f"], ["y"])], f=np.float32([factor]))


FEED = {"x": np.random.default_rng(0).standard_normal((3, 4), np.float32)}


@pytest.mark.parametrize(("factor", "wanted"), [(1.0, 0.0), (1.01, 0.01), (0.0, 1.0)])
def test_a_difference_is_relative_to_the_largest_output(tmp_path, factor, wanted):
    files = scaled(tmp_path / "a.onnx", 1), scaled(tmp_path / "b.onnx", factor)
    found = equal.difference(*map(session, files), FEED)
    assert found == pytest.approx(wanted, rel=1e-3)
    assert ("differs" in cleanup.verdict(found)) == (wanted > 0)


def test_another_shape_and_an_output_of_zeros_are_no_equality(tmp_path):
    plain = session(scaled(tmp_path / "a.onnx", 1))
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"])]
    flat = session(model(tmp_path / "b.onnx", nodes, rank=1, to=np.int64([-1])))
    assert equal.judged(plain, flat, FEED) == "breaks: y is float32[12], was float32[3, 4]"
    zeros = session(scaled(tmp_path / "c.onnx", 0))
    assert "zero everywhere" in str(equal.judged(zeros, zeros, FEED))


def test_a_batch_that_was_frozen_breaks_at_the_second_size(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"])]
    free = model(tmp_path / "a.onnx", nodes, to=np.int64([0, 4]))
    frozen = model(tmp_path / "b.onnx", nodes, to=np.int64([3, 4]))
    kinds = {"x": np.float32}
    feeds = sizes.feeds({"x": (3, 4)}, {"x": [True, False]}, kinds, seed=0)
    assert [feed["x"].shape for feed in feeds] == [(3, 4), (4, 4)]
    runners = session(free, False), session(frozen, False)
    first, second = (equal.judged(*runners, feed) for feed in feeds)
    assert first == 0.0
    assert str(second).startswith("breaks: ")
    row = cleanup.told({"differences": [first, second]})
    assert (row["original"], row["other"]) == ("0.0e+00", second)


def test_free_axes_grow_and_equal_ones_stay_equal():
    shapes = {"a": (2, 320), "b": (2, 5)}
    longer = sizes.longer(shapes, {"a": [True, True], "b": [True, False]})
    assert longer == {"a": (3, 352), "b": (3, 5)}
    assert len(sizes.feeds(shapes, {"a": [False] * 2, "b": [False] * 2},
                           dict.fromkeys("ab", np.float32), seed=0)) == 1  # fmt: skip


def test_numbers_fit_what_they_stand_for():
    rng = np.random.default_rng(0)
    ids = sizes.numbers("input_ids", (50, 50), np.int64, rng)
    assert 900 < ids.max() < sizes.IDS
    assert set(sizes.numbers("mask", (9, 9), np.int64, rng).ravel()) == {0, 1}
    levels = sizes.numbers("sigma", (99,), np.float32, rng)
    assert 0 < levels.min() < levels.max() < 1
    assert sizes.filled(np.arange(6).reshape(2, 3), (3, 4)).tolist() == [
        [0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0]]  # fmt: skip


def test_parts_of_a_sequence_are_inputs_of_their_own():
    found = _axes({"x": {0: "n"}, "past": ({2: "p"}, {2: "p"})})
    assert found == {"x": {0: "n"}, "past_0": {2: "p"}, "past_1": {2: "p"}}


def test_nodes_inside_bodies_count(tmp_path):
    inner = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "b", [], [inner])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    assert equal.node_count(onnx.load(model(tmp_path / "a.onnx", [branch], c=np.bool_(1)))) == 3
