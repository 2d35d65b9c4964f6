"""The numpy reference: right in single, and in double where asked."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from backends import reference
from backends.torch import Executor
from ir.errors import BackendError, DataError

TEXT = """<ir_version: 11, opset_import: ["": 25]>
g (float[2, 3] x, bool go) => (float[2, 3] y)
<float[3, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}, float[3] one = {1, 1, 1}>
{ h = MatMul(x, w)
  i = Cast <to = 7> (h)
  f = Cast <to = 1> (i)
  n = LayerNormalization(h, one)
  b = If (go) <then_branch = t () => (float[2, 3] p) {
                 third = Constant <value_float = 0.1> ()
                 p = Mul(n, third) },
               else_branch = e () => (float[2, 3] q) { q = Neg(n) }>
  y = Add(b, f) }
"""
MODEL = ir.from_onnx_text(TEXT)
X = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def by_hand(x: np.ndarray, go: bool) -> np.ndarray:
    h = x @ (np.arange(1, 10).reshape(3, 3).astype(np.float32).astype(x.dtype) / x.dtype.type(10))
    centred = h - h.mean(1, keepdims=True)
    n = centred / np.sqrt((centred**2).mean(1, keepdims=True) + np.float32(1e-5))
    return (n * x.dtype.type(np.float32(0.1)) if go else -n) + np.trunc(h)


@pytest.mark.parametrize("go", [True, False])
def test_single_precision(go: bool) -> None:
    got = reference.run(MODEL, {"x": X, "go": np.array(go)})["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_hand(X, go), rtol=1e-5, atol=1e-6)
    fast = Executor(MODEL).run({"x": X, "go": np.array(go)})["y"]
    np.testing.assert_allclose(fast.numpy(), got, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("go", [True, False])
def test_double_precision(go: bool) -> None:
    weights = MODEL.graph.initializers["w"].const_value.numpy().astype(np.float64)
    feeds = {"x": X, "go": np.array(go)}
    got = reference.run(MODEL, feeds, dtype=np.float64, outputs=["h", "y"])
    h = X.astype(np.float64) @ weights
    np.testing.assert_allclose(got["h"], h, rtol=1e-15)
    centred = h - h.mean(1, keepdims=True)
    n = centred / np.sqrt((centred**2).mean(1, keepdims=True) + np.float64(np.float32(1e-5)))
    y = (n * np.float64(np.float32(0.1)) if go else -n) + np.trunc(h)
    assert got["y"].dtype == np.float64
    np.testing.assert_allclose(got["y"], y, rtol=1e-12)


def test_local_functions_that_differ_only_in_overload() -> None:
    text = """<ir_version: 11, opset_import: ["": 25, "own": 1]>
    g (float[2] x) => (float[2] y) { a = own.F:one(x)  y = own.F:two(a) }
    <domain: "own", overload: "one", opset_import: ["": 25]>
    F (x) => (y) { y = Neg(x) }
    <domain: "own", overload: "two", opset_import: ["": 25]>
    F (x) => (y) { y = Exp(x) }
    """
    x = np.array([0.5, 2], np.float32)
    model = ir.from_onnx_text(text)
    for got in (reference.run(model, {"x": x})["y"], Executor(model).run({"x": x})["y"].numpy()):
        np.testing.assert_allclose(got, np.exp(-x), rtol=1e-6)


OPS = [
    "GroupNormalization <num_groups = 2> (x, c, c)",
    "LRN <size = 3> (x)",
    "Gelu(x)",
    'Gelu <approximate = "tanh"> (x)',
    "Erf(x)",
    "MeanVarianceNormalization(x)",
    "Attention(x, x, x)",
    "Softmax(x)",
    "InstanceNormalization(x, c, c)",
    "RMSNormalization(x, d)",
    "ReduceLogSumExp(x)",
    "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
    'Resize <mode = "linear"> (x, , s)',
    "ConvTranspose <strides = [2, 2]> (x, k)",
]


@pytest.mark.parametrize("op", OPS)
def test_numpy_and_torch_agree_in_double(op: str) -> None:
    """Two independent evaluations; neither may pass through single precision."""
    text = f"""<ir_version: 11, opset_import: ["": 25]>
    g (float[2, 4, 6, 5] x) => (float y)
    <float[4] c = {{1.5, 2, 3, 4}}, float[5] d = {{1, 2, 3, 4, 5}}, float[4] s = {{1, 1, 2, 1.5}},
     float[4, 1, 1, 2] k = {{1, 2, 3, 4, 5, 6, 7, 8}}>
    {{ y = {op} }}"""
    model = ir.from_onnx_text(text)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 5))
    slow = reference.run(model, {"x": x}, dtype=np.float64)["y"]
    fast = Executor(model, dtype=torch.float64).run({"x": x})["y"].numpy()
    assert slow.dtype == fast.dtype == np.float64
    np.testing.assert_allclose(fast, slow, rtol=1e-10, atol=1e-12)


def test_errors_name_the_cause() -> None:
    with pytest.raises(DataError, match="'go'"):
        reference.run(MODEL, {"x": X})
    with pytest.raises(DataError, match="'z'"):
        reference.run(MODEL, {"x": X, "go": np.array(True), "z": X})
    with pytest.raises(BackendError, match="reference evaluator"):
        reference.run(MODEL, {"x": X[:, :2], "go": np.array(True)})
