"""Modules and exported programs: same numbers, shared weights, dynamic shapes, module untouched."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from ir.capture import WORKING_OPSET, capture
from ir.errors import CaptureError
from tests.capture.running import assert_same, run

torch.set_num_threads(1)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        h = torch.relu(self.conv(x)).mean((2, 3))
        y = torch.softmax(self.head(self.drop(h)), -1)
        return y if scale is None else y * scale


@pytest.fixture(scope="module")
def net() -> Net:
    return Net().train()


def evaluated(net: Net, *args: torch.Tensor) -> np.ndarray:
    net.eval()
    with torch.no_grad():
        result = net(*args).numpy()
    net.train()
    return result


def test_module_with_dynamic_batch(net):
    net.drop.eval()
    x = torch.randn(2, 3, 8, 8)
    model = capture(net, (x,), dynamic=({0: torch.export.Dim("batch")},), name="net")
    assert net.training
    assert not net.drop.training
    assert model.graph.name == "net"
    assert model.opset_imports[""] == WORKING_OPSET
    assert str(model.graph.inputs[0].shape[0]) == "batch"
    more = torch.randn(5, 3, 8, 8)
    feeds = {model.graph.inputs[0].name: more.numpy()}
    assert_same(run(model, feeds), [evaluated(net, more)], rtol=1e-4, atol=1e-6)


def test_dimensions_may_be_given_as_names(net):
    model = capture(net, {"x": torch.randn(2, 3, 8, 8)}, dynamic={"x": {0: "n", 3: "w"}})
    assert [str(dim) for dim in model.graph.inputs[0].shape] == ["n", "3", "8", "w"]
    assert str(model.graph.outputs[0].shape[0]) == "n"


def test_weights_are_the_modules_own_memory(net):
    model = capture(net, torch.randn(1, 3, 8, 8))
    addresses = {
        value.const_value.numpy().__array_interface__["data"][0]
        for value in model.graph.initializers.values()
    }
    assert {net.conv.weight.data_ptr(), net.conv.bias.data_ptr()} <= addresses


def test_keyword_inputs(net):
    feeds = {"x": torch.randn(2, 3, 8, 8), "scale": torch.randn(5)}
    model = capture(net, feeds)
    arrays = {name: value.numpy() for name, value in feeds.items()}
    want = evaluated(net, feeds["x"], feeds["scale"])
    assert_same(run(model, arrays), [want], rtol=1e-4, atol=1e-6)


def test_exported_program_keeps_its_dynamic_shapes(net):
    x = torch.randn(2, 3, 8, 8)
    net.eval()
    shapes = {"x": {0: torch.export.Dim("n"), 2: torch.export.Dim("h")}}
    program = torch.export.export(net, (x,), dynamic_shapes=shapes)
    net.train()
    model = capture(program)
    n, channels, h, width = model.graph.inputs[0].shape
    assert (channels, width) == (3, 8)
    assert isinstance(n, ir.SymbolicDim)
    assert isinstance(h, ir.SymbolicDim)
    assert n != h
    wide = torch.randn(4, 3, 11, 8)
    feeds = {model.graph.inputs[0].name: wide.numpy()}
    assert_same(run(model, feeds), [evaluated(net, wide)], rtol=1e-4, atol=1e-6)


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


def test_refusals(net):
    with pytest.raises(CaptureError, match="needs example inputs"):
        capture(net)
    with pytest.raises(CaptureError, match=r"torch\.export cannot trace.*Branching"):
        capture(Branching(), torch.ones(2))
    with pytest.raises(CaptureError, match=r"torch\.export cannot trace"):
        capture(net, torch.ones(2, 7, 3, 3))
    assert net.training
    program = torch.export.export(net.eval(), (torch.randn(1, 3, 4, 4),))
    with pytest.raises(CaptureError, match="already has its example"):
        capture(program, torch.ones(2))


class Difference(torch.nn.Module):
    def forward(self, x: torch.Tensor, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return x - 2 * pair[0] + 3 * pair[1]


def test_one_tensor_given_twice_is_still_two_inputs():
    """torch.export takes inputs that are one object for one input, and then reads it for both."""
    same = torch.ones(2, 3)
    graph = capture(Difference(), (same, (same, same)))
    assert len(graph.graph.inputs) == 3
    rng = np.random.default_rng(0)
    x, a, b = (rng.standard_normal((2, 3)).astype(np.float32) for _ in range(3))
    names = [value.name for value in graph.graph.inputs]
    (found,) = run(graph, dict(zip(names, (x, a, b), strict=True)))
    np.testing.assert_allclose(found, x - 2 * a + 3 * b, rtol=1e-6, atol=1e-6)


def test_axes_of_tensors_in_a_sequence_are_named():
    tensors = [torch.ones(2, 3) for _ in range(3)]
    axes = {0: "rows"}
    graph = capture(
        Difference(), (tensors[0], tuple(tensors[1:])), dynamic={"x": axes, "pair": (axes, axes)}
    )
    assert [str(value.shape) for value in graph.graph.inputs] == ["[rows,3]"] * 3
