"""The seeded tiny networks: one interface, reproducible, and with the structures they promise."""

from __future__ import annotations

import inspect
from types import ModuleType

import numpy as np
import pytest
import torch

from models import decoder
from models.tiny import attention, conv, llama, mlp

TINY = [mlp, conv, attention, llama]


def run(net: torch.nn.Module, feed: dict[str, np.ndarray]) -> torch.Tensor:
    with torch.no_grad():
        return net(**{name: torch.from_numpy(array) for name, array in feed.items()})


@pytest.mark.parametrize("model", TINY, ids=lambda m: m.__name__)
class TestInterface:
    def test_inputs_are_named_alike_everywhere(self, model: ModuleType) -> None:
        arguments = list(inspect.signature(model.load().forward).parameters)
        assert list(model.DYNAMIC) == arguments
        assert list(model.calibration(1)[0]) == arguments
        assert len(model.example()) == len(arguments)

    def test_same_seed_same_network(self, model: ModuleType) -> None:
        feed = model.evaluation(1)[0]
        assert torch.equal(run(model.load(), feed), run(model.load(), feed))
        assert not torch.equal(run(model.load(), feed), run(model.load(seed=1), feed))

    def test_feeds_run_and_repeat_and_do_not_overlap(self, model: ModuleType) -> None:
        net = model.load()
        first, again, other = model.calibration(3), model.calibration(3), model.evaluation(3)
        for a, b, c in zip(first, again, other, strict=True):
            out = run(net, a)
            assert torch.isfinite(out).all()
            assert out.std() > 0.01
            name = next(iter(a))
            np.testing.assert_array_equal(a[name], b[name])
            assert a[name].shape != c[name].shape or (a[name] != c[name]).any()


def test_attention_ignores_padding() -> None:
    net = attention.load()
    feed = attention.evaluation(1)[0]
    changed = feed | {"tokens": feed["tokens"].copy()}
    changed["tokens"][1, -2:] += 100
    before, after = run(net, feed), run(net, changed)
    assert torch.equal(before[1, :-2], after[1, :-2])
    assert not torch.allclose(before[1, -1], after[1, -1])


def test_decoder_is_causal() -> None:
    net = llama.load()
    feed = llama.evaluation(1)[0]
    changed = {"input_ids": feed["input_ids"].copy()}
    changed["input_ids"][:, -1] = (changed["input_ids"][:, -1] + 1) % llama.SHAPE.vocabulary
    before, after = run(net, feed), run(net, changed)
    assert torch.allclose(before[:, :-1], after[:, :-1], atol=1e-6)
    assert not torch.allclose(before[:, -1], after[:, -1], atol=1e-2)


def test_rotary_products_depend_on_distance_only() -> None:
    angle = torch.outer(torch.arange(8.0), 10000.0 ** (-torch.arange(0, 4, 2) / 4)).repeat(1, 2)
    q, k = torch.randn(2, 1, 1, 1, 4).expand(2, 1, 1, 8, 4)
    products = decoder.rotate(q, angle.cos(), angle.sin()) @ decoder.rotate(
        k, angle.cos(), angle.sin()
    ).transpose(2, 3)
    for distance in range(4):
        diagonal = products[0, 0].diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert (products[0, 0, 0, 0] - products[0, 0, 0, 3]).abs() > 1e-3
