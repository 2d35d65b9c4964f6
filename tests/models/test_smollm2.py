"""SmolLM2 is the model it claims to be, its graph is its module, and off the grid it stays itself.

Perplexity needs the WikiText-2 raw test split, calibration the Brown corpus; skipped without.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import models
from backends.torch import Executor
from calib.metrics.perplexity import Perplexity, windows
from ir.errors import DataError
from models import smollm2, smollm2_off_grid
from models.cached_decoder import Feed, as_arguments, as_past
from models.data import brown

pytestmark = pytest.mark.slow
LAYERS = smollm2.SHAPE.layers
TEXT = """The tower is 324 metres (1,063 ft) tall — about as tall as an 81-storey building.
  It's called "La dame de fer" ;  naïve\tcafé, 東京 🙂 don't <|im_end|>
"""


@cache
def net() -> torch.nn.Module:
    return smollm2.load()


@cache
def executor() -> Executor:
    return Executor(models.capture(smollm2))


def source(feed: Feed, module: torch.nn.Module | None = None) -> Feed:
    with torch.no_grad():
        found = (module or net())(*as_arguments(feed, LAYERS))
    return {name: value.numpy() for name, value in zip(smollm2.OUTPUTS, found, strict=True)}


def captured(feed: Feed) -> Feed:
    return {name: value.numpy() for name, value in executor().run(feed).items()}


def relative(found: Feed, wanted: Feed) -> float:
    """Largest over the outputs of max |found - wanted| / max |wanted|."""
    assert found.keys() == wanted.keys()
    return max(np.abs(found[n] - wanted[n]).max() / np.abs(wanted[n]).max() for n in wanted)


def prose(tokens: int) -> np.ndarray:
    return smollm2.encode(TEXT * 8)[:tokens]


def perplexity_of(run, count: int) -> float:
    try:
        tokens = smollm2.wikitext_tokens()
    except DataError as error:
        pytest.skip(str(error))
    figure = Perplexity()
    for window in windows(tokens[: count * 512], 512):
        logits = run(smollm2.prefill(window.ids))["logits"][0]
        figure.add(window.scored(logits), window.targets)
    return figure.result().perplexity


def test_tokenizer_returns_the_text() -> None:
    ids = smollm2.encode(TEXT)
    assert smollm2.decode(ids) == TEXT
    assert smollm2.END & set(ids.tolist()) == {2}  # the control token is one id
    assert len(ids) < len(TEXT.encode()) / 2


def test_capture_is_the_module_in_prefill_and_step() -> None:
    tokens = prose(96).reshape(2, 48)
    whole = source(smollm2.prefill(tokens))
    assert relative(captured(smollm2.prefill(tokens)), whole) < 1e-5
    step = {"input_ids": tokens[:, :1], **as_past(whole)}
    assert relative(captured(step), source(step)) < 1e-5


def test_prefill_and_steps_are_the_whole_prefill() -> None:
    tokens = prose(40)
    whole = captured(smollm2.prefill(tokens))
    found = captured(smollm2.prefill(tokens[:36]))
    logits = [found["logits"]]
    for token in tokens[36:]:
        found = captured({"input_ids": np.array([[token]]), **as_past(found)})
        logits.append(found["logits"])
    assert relative({**found, "logits": np.concatenate(logits, 1)}, whole) < 1e-4


def test_answers() -> None:
    answer = smollm2.generate(captured, smollm2.question("What is the capital of France?"), 16)
    assert smollm2.decode(answer) == "The capital of France is Paris."


def test_perplexity_of_wikitext() -> None:
    assert perplexity_of(source, 16) == pytest.approx(36.0765, rel=1e-3)


def grid_error(weight: np.ndarray) -> float:
    """Relative error of rounding to 16 levels between the ends of every 32 inputs."""
    groups = weight.reshape(-1, 32).astype(np.float64)
    low, high = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
    scale = np.maximum(high - low, 1e-12) / 15
    error = np.round((groups - low) / scale) * scale + low - groups
    return float(np.linalg.norm(error) / np.linalg.norm(groups))


def test_off_grid_is_the_same_function_of_other_weights() -> None:
    other = smollm2_off_grid.load()
    feed = smollm2.prefill(prose(128))
    wanted, found = source(feed), source(feed, other)
    assert relative({"logits": found["logits"]}, {"logits": wanted["logits"]}) < 1e-5
    on, off = [], []
    for (name, old), new in zip(net().named_parameters(), other.parameters(), strict=True):
        if old.ndim == 2 and "embed" not in name:
            on.append(grid_error(old.detach().numpy()))
            off.append(grid_error(new.detach().numpy()))
    assert len(on) == 7 * LAYERS
    assert max(on) < 0.02
    assert min(off) > 0.05


def test_calibration_and_evaluation_share_no_window() -> None:
    try:
        brown.folder()
    except DataError as error:
        pytest.skip(str(error))
    feeds = smollm2.calibration(4) + smollm2.evaluation(4)
    windows_seen = {feed["input_ids"].tobytes() for feed in feeds}
    assert len(windows_seen) == 8
    assert all(feed["input_ids"].shape == (1, 512) for feed in feeds)
    assert feeds[0]["past_keys_29"].shape == (1, 3, 0, 64)
    again = smollm2.calibration(4)
    assert all((a["input_ids"] == b["input_ids"]).all() for a, b in zip(feeds, again, strict=False))
    assert set(brown.documents()[::2]).isdisjoint(brown.documents()[1::2])
