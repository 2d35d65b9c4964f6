"""The Fashion-MNIST classifiers name real pictures right, and their data parts are disjoint."""

from __future__ import annotations

import json

import numpy as np
import pytest

from backends.torch import Executor
from calib.metrics.classification import Classification
from models.data import clothes
from models.train.pictures import FOLDER
from models.weights import trained
from tests.models.reference import captured

LEAST = {"fashion_cnn": 0.91, "fashion_vit": 0.86}
needs_pictures = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)


@needs_pictures
@pytest.mark.parametrize("name", LEAST)
def test_real_pictures_get_their_label(name):
    executor, figures = Executor(captured(name), threads=1), Classification()
    for feed, labels in zip(*clothes.labelled(500), strict=True):
        logits = executor.run(feed)["logits"].numpy()
        figures.add(labels, logits, logits)
    stated = trained_accuracy(name)
    assert figures.result().top1.low - 0.01 <= stated <= figures.result().top1.high + 0.01
    assert stated >= LEAST[name]


def trained_accuracy(name: str) -> float:
    return json.loads((trained.FOLDER / f"{name}.json").read_text())["test_accuracy"]


@needs_pictures
def test_calibration_and_test_pictures_are_different_ones():
    one, two = clothes.calibration(20), clothes.evaluation(20)
    assert {feed["x"].shape for feed in one + two} == {(1, 1, 28, 28)}
    assert not any(np.array_equal(a["x"], b["x"]) for a in one for b in two)
    again = clothes.calibration(20)
    assert all(np.array_equal(a["x"], b["x"]) for a, b in zip(one, again, strict=True))
