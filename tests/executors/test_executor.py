"""The executor's own promises: cuts, watchers, params, gradients, dtypes, errors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from backends.torch import Executor
from ir.errors import BackendError, DataError

HEAD = '<ir_version: 11, opset_import: ["": 25]>\n'


def graph(text: str) -> ir.Model:
    return ir.from_onnx_text(HEAD + text)


MLP = """
mlp (float[N, 3] x) => (float[N, 2] y)
<float[3, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
 float[4, 2] v = {1, -1, 2, -2, 3, -3, 4, -4}>
{ h = MatMul(x, w)
  r = Relu(h)
  y = MatMul(r, v) }
"""
RESIDUAL = """
res (float[N, 3] x) => (float[N, 3] y)
{ a = Relu(x)
  b = Sigmoid(a)
  s = Tanh(x)
  c = Exp(b)
  y = Add(c, s) }
"""
LOOP = """
loop (float[2] x, int64 n) => (float[2] y)
{ go = Constant <value = bool {1}> ()
  two = Constant <value = float {2}> ()
  y = Loop (n, go, x) <body = step (int64 i, bool c, float[2] s) => (bool k, float[2] t)
      { k = Identity(c)
        t = Mul(s, two) }> }
"""
X = np.array([[1.0, -2.0, 0.5]], np.float32)


def test_runs_with_numpy_and_torch_feeds_and_any_outputs() -> None:
    executor = Executor(graph(MLP))
    got = executor.run({"x": X}, outputs=["h", "y"])
    w = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    v = np.array([[1, -1], [2, -2], [3, -3], [4, -4]], np.float32)
    np.testing.assert_allclose(got["h"].numpy(), X @ w)
    np.testing.assert_allclose(got["y"].numpy(), np.maximum(X @ w, 0) @ v)
    again = executor.run({"x": torch.from_numpy(X)})
    assert list(again) == ["y"]
    assert torch.equal(again["y"], got["y"])


def test_only_what_an_output_needs_is_computed() -> None:
    executor = Executor(graph(RESIDUAL))
    seen: list[str] = []
    executor.run({"x": X}, outputs=["s"])
    watch = {name: lambda t, name=name: seen.append(name) for name in ("x", "s", "a")}
    executor.run({"x": X}, outputs=["s"], watch={"x": watch["x"], "s": watch["s"]})
    assert seen == ["x", "s"]
    executor.run({"x": X}, outputs=[], watch={"a": watch["a"]})
    assert seen == ["x", "s", "a"]


def test_nothing_is_kept_between_runs_where_one_is_all() -> None:
    text = """
    g (float[4] x) => (float[4] y)
    <float[4] w = {1, 2, 3, 4}> { e = Exp(w)  y = Mul(x, e) }
    """
    x = np.ones(4, np.float32)
    kept, free = Executor(graph(text)), Executor(graph(text), keep_bytes=0)
    assert torch.equal(kept.run({"x": x})["y"], free.run({"x": x})["y"])
    assert len(kept._constants.folded) == 1
    assert not free._constants.folded


def test_values_are_freed_after_their_last_use() -> None:
    import weakref

    refs: dict[str, weakref.ref] = {}
    alive: list[bool] = []
    executor = Executor(graph(MLP))
    executor.run(
        {"x": X},
        watch={
            "h": lambda t: refs.update(h=weakref.ref(t)),
            "y": lambda t: alive.append(refs["h"]() is not None),
        },
    )
    assert alive == [False]


def test_watch_reaches_inputs_constants_and_bodies() -> None:
    executor = Executor(graph(LOOP))
    seen: list[list[float]] = []
    feeds = {"x": np.ones(2, np.float32), "n": np.int64(3)}
    got = executor.run(feeds, watch={"t": lambda t: seen.append(t.tolist())})
    assert seen == [[2.0, 2.0], [4.0, 4.0], [8.0, 8.0]]
    assert got["y"].tolist() == [8.0, 8.0]
    constants: list[torch.Tensor] = []
    Executor(graph(MLP)).run({"x": X}, watch={"w": constants.append})
    assert constants[0].shape == (3, 4)


def test_an_error_of_a_watcher_is_its_own() -> None:
    def fail(_: torch.Tensor) -> None:
        raise DataError("not finite")

    with pytest.raises(DataError, match="not finite"):
        Executor(graph(MLP)).run({"x": X}, watch={"h": fail})
    feeds = {"x": np.ones(2, np.float32), "n": np.int64(3)}
    with pytest.raises(DataError, match="not finite"):
        Executor(graph(LOOP)).run(feeds, watch={"t": fail})


def test_params_replace_initializers_and_take_gradients() -> None:
    executor = Executor(graph(MLP))
    w = torch.full((3, 4), 0.5, requires_grad=True)
    y = executor.run({"x": np.abs(X)}, params={"w": w})["y"]
    y[0, 0].backward()
    expected = np.outer(np.abs(X)[0], [1, 2, 3, 4])
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-6)
    assert not executor.run({"x": X})["y"].requires_grad
    with torch.no_grad():
        assert not executor.run({"x": X}, params={"w": w})["y"].requires_grad


def test_gradient_of_an_input_matches_finite_differences() -> None:
    executor = Executor(graph(RESIDUAL), dtype=torch.float64)
    x = torch.tensor([[0.3, -0.2, 1.1]], dtype=torch.float64, requires_grad=True)
    executor.run({"x": x})["y"].sum().backward()
    assert x.grad is not None
    step, slow = 1e-6, []
    for i in range(3):
        up, down = x.detach().clone(), x.detach().clone()
        up[0, i] += step
        down[0, i] -= step
        rise = executor.run({"x": up})["y"].sum() - executor.run({"x": down})["y"].sum()
        slow.append(float(rise) / (2 * step))
    np.testing.assert_allclose(x.grad.numpy()[0], slow, rtol=1e-6)


def test_gradient_through_a_loop() -> None:
    x = torch.ones(2, requires_grad=True)
    Executor(graph(LOOP)).run({"x": x, "n": np.int64(3)})["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8.0, 8.0]


def test_dtype_takes_the_place_of_float32() -> None:
    third = {"x": np.full((1, 3), 1 / 3)}
    y = Executor(graph(MLP), dtype=torch.float64).run(third)["y"]
    assert y.dtype is torch.float64
    w = np.arange(1, 13.0).reshape(3, 4)
    v = np.array([[1, -1], [2, -2], [3, -3], [4, -4.0]])
    np.testing.assert_allclose(y.numpy(), third["x"] @ w @ v, rtol=1e-14)


def test_region_runs_between_two_cuts() -> None:
    executor = Executor(graph(RESIDUAL))
    whole = executor.run({"x": X}, outputs=["a", "c"])
    part = executor.region(["a"], ["c"])
    assert part.inputs == ("a",)
    assert torch.equal(part.run({"a": whole["a"]})["c"], whole["c"])
    rest = executor.region(["c", "s"], ["y"])
    assert rest.run({"c": X, "s": X})["y"].tolist() == (X + X).tolist()
    with pytest.raises(DataError, match="'s'"):
        rest.run({"c": X})


def test_region_names_the_value_that_leaks() -> None:
    executor = Executor(graph(RESIDUAL))
    with pytest.raises(BackendError, match="%s") as caught:
        executor.region(["a"], ["y"])
    assert "add 's'" in caught.value.hint
    with pytest.raises(BackendError, match="%x"):
        executor.region([], ["a"])


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    inside: list[int] = []
    executor = Executor(graph(MLP), threads=before + 1)
    executor.run({"x": X}, watch={"h": lambda t: inside.append(torch.get_num_threads())})
    assert inside == [before + 1]
    assert torch.get_num_threads() == before


def test_weights_are_views_of_the_models_memory() -> None:
    array = np.ones((3, 4), np.float32)
    model = graph(MLP)
    model.graph.initializers["w"].const_value = ir.tensor(array, name="w")
    seen: list[int] = []
    Executor(model).run({"x": X}, watch={"w": lambda t: seen.append(t.data_ptr())})
    assert seen == [array.ctypes.data]


def test_constant_subgraphs_are_computed_once() -> None:
    text = """
    g (float[2] x) => (float[2] y)
    <float[2] c = {1, 2}>
    { d = Exp(c)
      e = Neg(d)
      y = Mul(x, e) }
    """
    executor = Executor(graph(text))
    x = np.ones(2, np.float32)
    seen: list[int] = []
    for _ in range(2):
        executor.run({"x": x}, watch={"e": lambda t: seen.append(t.data_ptr())})
    assert seen[0] == seen[1]
    c = torch.zeros(2, requires_grad=True)
    executor.run({"x": x}, params={"c": c})["y"].sum().backward()
    assert c.grad is not None
    assert c.grad.tolist() == [-1.0, -1.0]


@pytest.mark.parametrize(
    ("feeds", "says"),
    [
        ({}, "no feed for input 'x'"),
        ({"x": X, "z": X}, "'z'"),
        ({"x": X.astype(np.int64)}, "expected torch.float32"),
        ({"x": X[:, :2]}, "MatMul"),
    ],
)
def test_bad_feeds_are_refused(feeds: dict, says: str) -> None:
    with pytest.raises((DataError, BackendError), match=says):
        Executor(graph(MLP)).run(feeds)


def test_unknown_names_and_ops_are_refused() -> None:
    executor = Executor(graph(MLP))
    with pytest.raises(BackendError, match="no value named 'q'"):
        executor.run({"x": X}, outputs=["q"])
    with pytest.raises(BackendError, match="no value named 'q'"):
        executor.run({"x": X}, watch={"q": print})
    odd = graph("g (float[1] x) => (float[1] y) { y = Relu <slope: float = 1.0> (x) }")
    with pytest.raises(BackendError, match="Relu"):
        Executor(odd).run({"x": np.ones(1, np.float32)})


def test_a_gradient_does_not_pass_onnx_runtime() -> None:
    text = """
    g (float[1, 1, 2, 2] x) => (float[1] y)
    <float[1, 4] boxes = {0, 0, 1, 1}, int64[1] which = {0}>
    { r = RoiAlign(x, boxes, which)
      y = ReduceSum <keepdims = 0> (r) }
    """
    executor = Executor(graph(text))
    x = torch.ones(1, 1, 2, 2)
    assert float(executor.run({"x": x})["y"]) > 0
    with pytest.raises(BackendError, match="RoiAlign"):
        executor.run({"x": x.requires_grad_()})


def test_a_function_body_is_differentiable() -> None:
    text = """
    g (float[1, 1, 2, 4] q) => (float[1, 1, 2, 4] y) { y = Attention(q, q, q) }
    """
    q = torch.randn(1, 1, 2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = Executor(graph(text)).run({"q": q})["y"]
    expected = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    torch.testing.assert_close(y, expected)
    (ours,) = torch.autograd.grad(y.square().sum(), q)
    (theirs,) = torch.autograd.grad(expected.square().sum(), q)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("opset", "axes"), [(11, (1, 2)), (13, (2,))])
def test_softmax_means_what_its_opset_says(opset: int, axes: tuple[int, ...]) -> None:
    text = f"""<ir_version: 6, opset_import: ["": {opset}]>
    g (float[2, 3, 4] x) => (float[2, 3, 4] y) {{ y = Softmax(x) }}"""
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 5
    y = Executor(ir.from_onnx_text(text)).run({"x": x})["y"].numpy()
    np.testing.assert_allclose(y.sum(axes), 1, rtol=1e-6)
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(axes, keepdims=True), rtol=1e-5)
