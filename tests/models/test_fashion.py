"""The Fashion-MNIST classifiers: capture, structure, accuracy, and their training loop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import ir
import passes
from backends.torch import Executor
from calib.metrics.classification import Classification
from ir.analysis.blocks import blocks
from models import fashion_cnn, fashion_vit, named
from models.data import clothes
from models.train import classifier
from models.train.pictures import FOLDER
from models.weights import trained

MODELS = {"fashion_cnn": fashion_cnn.FashionCnn, "fashion_vit": fashion_vit.FashionVit}
MODULES = {"fashion_cnn": fashion_cnn, "fashion_vit": fashion_vit}
SETTINGS = classifier.Settings(steps=4, batch=4, rise=2)
needs_pictures = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    """(name, module, captured graph) with the committed weights."""
    module = MODULES[request.param]
    net = module.load()
    graph = ir.capture(net, module.example(), dynamic=module.DYNAMIC)
    return request.param, net, named(graph, module.OUTPUTS)


@pytest.mark.parametrize("n", [1, 3])
def test_the_captured_graph_is_the_module_at_every_batch(case, n):
    _, net, graph = case
    x = np.random.default_rng(n).uniform(-1, 1, (n, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    found = Executor(graph).run({"x": x})["logits"].numpy()
    assert np.abs(wanted).max() > 0.5
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_every_residual_block_is_found(case):
    name, _, graph = case
    found = blocks(passes.run(graph, "clean").graph)
    layers = {"fashion_cnn": 3 * fashion_cnn.BLOCKS, "fashion_vit": 2 * fashion_vit.LAYERS}
    assert Counter(block.kind for block in found) == {"residual": layers[name]}


@needs_pictures
def test_real_pictures_get_their_label(case):
    name, _, graph = case
    executor, figures = Executor(graph, threads=1), Classification()
    for feed, labels in zip(*clothes.labelled(500), strict=True):
        logits = executor.run(feed)["logits"].numpy()
        figures.add(labels, logits, logits)
    stated = trained_accuracy(name)
    assert figures.result().top1.low - 0.01 <= stated <= figures.result().top1.high + 0.01
    assert stated >= {"fashion_cnn": 0.91, "fashion_vit": 0.86}[name]


def trained_accuracy(name: str) -> float:
    import json

    return json.loads((trained.FOLDER / f"{name}.json").read_text())["test_accuracy"]


@needs_pictures
def test_calibration_and_test_pictures_are_different_ones():
    one, two = clothes.calibration(20), clothes.evaluation(20)
    assert {feed["x"].shape for feed in one + two} == {(1, 1, 28, 28)}
    assert not any(np.array_equal(a["x"], b["x"]) for a in one for b in two)
    again = clothes.calibration(20)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(one, again, strict=True))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 28, 28), generator=draw, dtype=torch.uint8)
    return images, torch.arange(40) % 10


@pytest.mark.parametrize("name", MODELS)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, name):
    whole, stopped, resumed = (classifier.start(MODELS[name], SETTINGS) for _ in range(3))
    losses = [classifier.step(whole, *data(), SETTINGS) for _ in range(4)]
    assert [classifier.step(stopped, *data(), SETTINGS) for _ in range(2)] == losses[:2]
    stopped.save(tmp_path / "state.pt")
    resumed.restore(tmp_path / "state.pt")
    assert [classifier.step(resumed, *data(), SETTINGS) for _ in range(2)] == losses[2:]
    a, b = whole.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_rate_rises_and_falls_to_nothing():
    settings = classifier.Settings(steps=100, rise=10, rate=1.0)
    rates = [settings.rate_at(step) for step in range(101)]
    assert rates[0] < 0.2 < 0.9 < max(rates) <= 1
    assert rates[12:] == sorted(rates[12:], reverse=True)
    assert rates[100] == pytest.approx(0)


def test_pictures_are_moved_and_mirrored_whole():
    """Every variant is one of the 5 x 5 x 2 that loops make."""
    picture = torch.randint(0, 256, (28, 28), dtype=torch.uint8)
    found = classifier.varied(picture.expand(64, 28, 28), torch.Generator().manual_seed(1), 2)
    plain = picture.float() / 127.5 - 1
    variants = []
    for base in (plain, plain.flip(1)):
        framed = torch.full((32, 32), -1.0)
        framed[2:30, 2:30] = base
        for down in range(5):
            variants += [framed[down : down + 28, x : x + 28] for x in range(5)]
    numbers = [next(i for i, v in enumerate(variants) if torch.equal(v, x[0])) for x in found]
    assert len(set(numbers)) > 20
