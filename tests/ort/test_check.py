"""The check finds kernels that are gone and sessions that compute something else."""

from dataclasses import replace

import numpy as np
import pytest

import backends
from backends.ort import TARGET
from backends.ort.bench import latency
from backends.ort.check import agreement, kernels
from backends.ort.lower import lower
from backends.ort.session import Session
from backends.ort.sites import Site
from ir.errors import BackendError
from ir.qtype import QType
from tests.ort.coded import steps, tame
from tests.ort.test_lower_linear import SCALE, ZERO, matmul

X = {"x": steps((5, 33), SCALE, ZERO)}


def test_a_kernel_that_is_not_there_is_reported():
    made = lower(matmul(tame((33, 8))))
    assert [site.kernel for site in kernels(made)] == ["MatMulIntegerToFloat"]
    made.sites = [replace(made.sites[0], weight="another")]
    (lost,) = kernels(made)
    assert lost.kernel == ""
    assert "its weight is gone" in lost.reason
    made.sites = [replace(made.sites[0], kernel="QLinearConv", weight="w.codes")]
    (other,) = kernels(made)
    assert "read by MatMulIntegerToFloat" in other.reason


def test_carriers_are_counted():
    made = lower(matmul(tame((33, 8))))
    made.sites = [Site("a", "Add", "QLinearAdd")]
    (lost,) = kernels(made)
    assert "made no QLinearAdd" in lost.reason


def test_agreement_tells_equal_from_different():
    graph = matmul(tame((33, 8)))
    same = agreement(graph, lower(graph).graph, [X, X])
    assert same.worst_db > 100
    assert max(same.largest.values()) < 1e-5
    other = agreement(graph, lower(matmul(tame((33, 8), seed=1))).graph, [X])
    assert other.worst_db < 10


def test_a_session_needs_a_model(tmp_path):
    with pytest.raises(BackendError, match="does not take the model"):
        Session(tmp_path / "nothing.onnx")


def test_latency_is_relative_to_the_first():
    small, large = matmul(tame((33, 8))), matmul(tame((33, 4096)), shape=(5, 33))
    found = latency([small, large, small], X, repeats=5, least_seconds=0.0005)
    assert found.ratios[0] == 1
    assert found.ratios[1] > 2
    assert found.ratios[2] < found.ratios[1]
    assert min(found.milliseconds) > 0


@pytest.mark.parametrize(
    ("activation", "weight", "kernel"),
    [
        ("u8@0*f32+u8", "i8@0x1*f32", "MatMulIntegerToFloat"),
        ("u8@0*f32+u8", "i4@0x1*f32", "MatMulIntegerToFloat"),
        (None, "u4@32x1*f32+u4", "MatMulNBits"),
        (None, "i8@0x1*f32", "decoded when loading"),
    ],
)
def test_what_the_target_promises_is_what_is_built(activation, weight, kernel):
    graph = matmul(np.abs(tame((32, 8))) // 8, qtype=weight, shape=(5, 32)) if activation else None
    node = next(
        n for n in (graph or matmul(tame((32, 8)), shape=(5, 32))).graph if n.op_type == "MatMul"
    )
    parsed = None if activation is None else QType.parse(activation)
    verdict = TARGET.supports(node, parsed, QType.parse(weight))
    assert (verdict.ok, verdict.kernel, verdict.float_output) == (True, kernel, True)
    if graph is not None:
        built = backends.build(graph, "ort").manifest.kernels
        assert [entry["kernel"] for entry in built] == [kernel]


@pytest.mark.parametrize(
    ("activation", "weight", "said"),
    [
        ("i8@0*f32", "i8@0x1*f32", "u8 values"),
        ("u8@1x0*f32+u8", "i8@0x1*f32", "u8 values"),
        ("u8@0*f32+u8", "u8@0x1*f32+u8", "symmetric"),
        ("u8@0*f32+u8", "i8@16x1*f32", "one scale per output"),
        ("u8@0*f32+u8", "i8@1x0*f32", "one scale per output"),
    ],
)
def test_what_the_target_refuses_it_explains(activation, weight, said):
    node = next(n for n in matmul(tame((32, 8)), shape=(5, 32)).graph if n.op_type == "MatMul")
    verdict = TARGET.supports(node, QType.parse(activation), QType.parse(weight))
    assert not verdict.ok
    assert said in verdict.reason
