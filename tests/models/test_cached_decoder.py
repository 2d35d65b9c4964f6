"""The decoder with a KV cache at a tiny size, through capture: one graph is prefill and step."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import models
from backends.torch import Executor
from models import cached_decoder, smollm2_off_grid
from models.cached_decoder import Feed, as_arguments, as_past, greedy, no_past
from models.decoder import Decoder, Shape

SHAPE = Shape(vocabulary=50, width=48, layers=2, heads=6, kv_heads=2, hidden=64)
TINY = SimpleNamespace(
    load=lambda: cached_decoder.build(SHAPE, 0),
    example=lambda: cached_decoder.example(SHAPE),
    DYNAMIC=cached_decoder.dynamic(SHAPE.layers),
    OUTPUTS=cached_decoder.outputs(SHAPE.layers),
)
IDS = np.random.default_rng(0).integers(50, size=(3, 9))


@cache
def executor() -> Executor:
    return Executor(models.capture(TINY))


def captured(feed: Feed) -> Feed:
    return {name: value.numpy() for name, value in executor().run(feed).items()}


def source(feed: Feed) -> Feed:
    with torch.no_grad():
        found = TINY.load()(*as_arguments(feed, SHAPE.layers))
    return {name: value.numpy() for name, value in zip(TINY.OUTPUTS, found, strict=True)}


def close(found: Feed, wanted: Feed) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].shape == array.shape
        difference = np.abs(found[name] - array).max() / np.abs(array).max()
        assert difference < 1e-5, name


def test_capture_is_the_module_in_prefill_and_step() -> None:
    prefill = {"input_ids": IDS, **no_past(SHAPE, 3)}
    whole = source(prefill)
    close(captured(prefill), whole)
    assert whole["logits"].std() > 0.3
    assert whole["keys_1"].shape == (3, 2, 9, 8)
    step = {"input_ids": IDS[:, :1], **as_past(whole)}
    close(captured(step), source(step))


@pytest.mark.parametrize("cuts", [[4], [1, 2, 3], [3, 8]])
def test_parts_behind_a_past_are_the_whole(cuts: list[int]) -> None:
    past, logits = no_past(SHAPE, 3), []
    for part in np.split(IDS, cuts, axis=1):
        found = captured({"input_ids": part, **past})
        past = as_past(found)
        logits.append(found["logits"])
    whole = captured({"input_ids": IDS, **no_past(SHAPE, 3)})
    close({**found, "logits": np.concatenate(logits, 1)}, whole)


def test_without_a_past_it_is_the_plain_decoder() -> None:
    net, plain = TINY.load(), Decoder(SHAPE).eval()
    state = net.state_dict()
    plain.load_state_dict({**state, "head.weight": state["embed.weight"]})
    with torch.no_grad():
        wanted = plain(torch.from_numpy(IDS)).numpy()
    found = source({"input_ids": IDS, **no_past(SHAPE, 3)})["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_greedy_takes_the_likeliest_and_stops() -> None:
    ids = IDS[0].tolist()
    said = []
    for _ in range(6):
        feed = {"input_ids": np.array([ids + said]), **no_past(SHAPE, 1)}
        said.append(int(source(feed)["logits"][0, -1].argmax()))
    assert len(set(said)) > 1
    none = no_past(SHAPE, 1)
    assert greedy(captured, ids, none, set(), 6) == said
    end = said[-1]
    assert greedy(captured, ids, none, {end}, 6) == said[: said.index(end)]


def test_off_grid_keeps_the_function_and_changes_every_linear() -> None:
    feed = {"input_ids": IDS, **no_past(SHAPE, 3)}
    net, plain = TINY.load(), TINY.load()
    assert smollm2_off_grid.off_grid(net, sigma=0.2, seed=1) is net
    with torch.no_grad():
        found = net(*as_arguments(feed, SHAPE.layers))
    wanted = source(feed)
    difference = np.abs(found[0].numpy() - wanted["logits"]).max()
    assert difference < 1e-5 * np.abs(wanted["logits"]).max()
    changed = {
        name: (new / old).std()
        for (name, new), old in zip(net.named_parameters(), plain.parameters(), strict=True)
    }
    kept = {name for name, spread in changed.items() if spread < 0.05}
    assert kept == {"embed.weight", "norm.weight"}
