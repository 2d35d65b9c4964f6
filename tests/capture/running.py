"""Run ONNX models and compare what two of them compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from ir.capture import to_proto

ort.set_default_logger_severity(4)


def run(model: onnx.ModelProto | ir.Model, feeds: dict[str, np.ndarray]) -> list:
    """Outputs of a model in ONNX Runtime, one thread, without graph optimisations."""
    proto = to_proto(model) if isinstance(model, ir.Model) else model
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def assert_same(got: list, want: list, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Same number of outputs, each of the same shape, type and numbers."""
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        assert mine.shape == theirs.shape
        assert mine.dtype == theirs.dtype
        if mine.dtype.kind in "OUSb":
            assert (mine == theirs).all()
        else:
            np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol)
