"""A product and its bias as one step: torch's own linear layer to the bit, where it is one."""

import numpy as np
import pytest
import torch
from torch.nn import functional

import ir
from backends.torch import Executor

LAYER = """
graph g(%x: f32[n,3,64]) -> %y {
  %w : f32[64,48] = const seed:1
  %b : f32[48] = const seed:2
  %h : f32[n,3,48] = MatMul(%x, %w)
  %y : f32[n,3,48] = Add(%b, %h)
}
"""


def data(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def constants(graph):
    held = graph.graph.initializers
    return tuple(torch.from_numpy(held[name].const_value.numpy()) for name in ("w", "b"))


def steps_of(executor):
    (plan,) = executor._plans.values()
    return len(plan.steps)


def test_it_is_torchs_linear_layer():
    graph, x = ir.parse(LAYER), data(5, 3, 64)
    executor = Executor(graph)
    found = executor.run({"x": x})["y"]
    assert steps_of(executor) == 1
    weight, bias = constants(graph)
    x = torch.from_numpy(x)
    assert torch.equal(found, functional.linear(x, weight.T.contiguous(), bias))
    torch.testing.assert_close(found, x @ weight + bias)


def test_a_product_that_is_watched_or_asked_for_is_computed():
    graph, x = ir.parse(LAYER), data(5, 3, 64)
    seen = {}
    y = Executor(graph).run({"x": x}, watch={"h": lambda t: seen.update(h=t.clone())})["y"]
    both = Executor(graph).run({"x": x}, outputs=["h", "y"])
    assert torch.equal(seen["h"], both["h"])
    torch.testing.assert_close(y, seen["h"] + constants(graph)[1])


def test_a_product_with_two_readers_stays_a_step_of_its_own():
    text = LAYER.replace("-> %y", "-> %z").replace("}\n", "  %z : f32[n,3,48] = Mul(%y, %h)\n}\n")
    executor, x = Executor(ir.parse(text)), data(2, 3, 64)
    found = executor.run({"x": x})["z"]
    assert steps_of(executor) == 3
    w, b = constants(executor.graph)
    h = torch.from_numpy(x) @ w
    torch.testing.assert_close(found, (h + b) * h)


@pytest.mark.parametrize("bias", ["f32[3,48]", "f32[1]", "f32[2,3,48]"])
def test_what_is_no_bias_is_added_as_it_is(bias):
    graph, x = ir.parse(LAYER.replace("f32[48]", bias)), data(2, 3, 64)
    w, b = constants(graph)
    found = Executor(graph).run({"x": x})["y"]
    torch.testing.assert_close(found, torch.from_numpy(x) @ w + b)


def test_gradients_reach_all_three():
    graph = ir.parse(LAYER)
    w, b = (t.clone().requires_grad_() for t in constants(graph))
    x = torch.from_numpy(data(2, 3, 64)).requires_grad_()
    y = Executor(graph).run({"x": x}, params={"w": w, "b": b})["y"]
    found = torch.autograd.grad(y.square().sum(), (x, w, b))
    wanted = torch.autograd.grad((x @ w + b).square().sum(), (x, w, b))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
        assert other.abs().max() > 1
