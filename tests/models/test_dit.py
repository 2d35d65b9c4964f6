"""The diffusion transformer: capture both ways, its blocks, and sampling through a graph."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import ir
from backends.torch import Executor
from calib.metrics.images import ClassAccuracy, Gaussian, frechet
from ir.analysis.blocks import blocks
from ir.analysis.streams import streams
from ir.errors import DataError
from ir.graph import Graph
from models import capture, dit, judge, samplers
from models.train.pictures import pictures, scaled
from models.weights import trained


def feeds(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    t = rng.uniform(size=n).astype(np.float32)
    return {"x": samplers.noise(n, (1, 28, 28), n), "t": t, "label": rng.integers(0, 11, n)}


def difference(graph: Graph, n: int) -> float:
    feed = feeds(n)
    want = samplers.of_module(dit.load())(*feed.values())
    got = samplers.of_graph(Executor(graph).run)(*feed.values())
    assert got.shape == want.shape == (n, 1, 28, 28)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@cache
def exported() -> Graph:
    return capture(dit)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> Graph:
    file: Path = tmp_path_factory.mktemp("dit") / "dit.onnx"
    with pytest.warns(DeprecationWarning, match="legacy TorchScript"):
        torch.onnx.export(
            dit.load(), dit.example(), str(file), dynamo=False, opset_version=17,
            input_names=list(dit.DYNAMIC), output_names=["velocity"], dynamic_axes=dit.DYNAMIC,
        )  # fmt: skip
    return ir.capture(file)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_exported_graph_is_the_module_at_every_batch(n):
    assert difference(exported(), n) < 1e-5


@pytest.mark.parametrize("n", [1, 5])
def test_scripted_graph_is_the_module(scripted, n):
    assert difference(scripted, n) < 1e-5


def test_every_layer_has_two_residual_blocks(scripted):
    for graph in (exported(), scripted):
        found = [b for b in blocks(graph) if b.kind == "residual"]
        linear = ("MatMul", "Gemm")
        counts = [sum(n.op_type in linear for n in b.nodes) for b in found]
        assert counts == [4, 2] * dit.LAYERS  # qkv, q k, weights v, out; up, down
        assert all(len(b.side) == 3 for b in found)  # shift, scale and gate


def test_streams_of_every_layer():
    """Norm to q k v, v to o, norm to up; queries beside keys; and the last norm."""
    found = [s for s in streams(exported()) if s.blocked is None]
    assert sum(s.pair is not None for s in found) == dit.LAYERS
    assert [len(s.readers) for s in found if s.pair is None] == [1] * (3 * dit.LAYERS + 1)


def test_pictures_of_equal_noise_are_equal_through_the_graph():
    want, labels = dit.sample(samplers.of_module(dit.load()), 3, seed=5)
    got, _ = dit.sample(samplers.of_graph(Executor(exported()).run), 3, seed=5)
    other, _ = dit.sample(samplers.of_module(dit.load()), 3, seed=6)
    assert labels.tolist() == [0, 1, 2]
    np.testing.assert_allclose(got, want, atol=1e-3)
    assert np.abs(other - want).mean() > 0.05


def test_feeds_are_even_over_steps_and_show_the_branch_without_class():
    found, other = dit.calibration(40), dit.evaluation(40)
    steps = Counter(feed["t"].item() for feed in found)
    assert len(steps) == dit.STEPS
    assert set(steps.values()) == {2}
    without = sum(feed["label"].item() == dit.NO_CLASS for feed in found)
    assert 10 <= without <= 30
    seen = {feed["x"].tobytes() for feed in found}
    assert not seen & {feed["x"].tobytes() for feed in other}
    again = dit.calibration(40)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(found, again, strict=True))


def test_damaged_weights_are_refused(tmp_path):
    trained.write("small", torch.nn.Linear(2, 2), {"seed": 0}, tmp_path)
    assert set(trained.read("small", tmp_path)) == {"weight", "bias"}
    file = tmp_path / "small.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(DataError, match="SHA-256 differs"):
        trained.read("small", tmp_path)
    with pytest.raises(DataError, match="are missing"):
        trained.read("none", tmp_path)


@pytest.mark.slow
def test_pictures_are_of_the_class_asked_for_and_nearer_to_real_ones_than_noise():
    try:
        images, classes = pictures("t10k")
    except DataError as error:
        pytest.skip(str(error))
    drawn, labels = dit.sample(samplers.of_module(dit.load()), 200, seed=3)
    real = judge.judge(scaled(images[:1000]).numpy())
    judged = judge.judge(drawn), judge.judge(samplers.noise(200, (1, 28, 28), 3))
    assert accuracy(classes[:1000].numpy(), real[1]) > 0.85
    assert accuracy(labels, judged[0][1]) > 0.75
    assert accuracy(labels, judged[1][1]) < 0.3
    near, far = (frechet(gaussian(features), gaussian(real[0])) for features, _ in judged)
    assert near < 0.2 * far


def accuracy(labels: np.ndarray, found: np.ndarray) -> float:
    measured = ClassAccuracy()
    measured.add(labels, found)
    return measured.result()


def gaussian(features: np.ndarray) -> Gaussian:
    found = Gaussian()
    found.add(features)
    return found
