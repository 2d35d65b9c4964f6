"""Weights in minifloats and nf4, from recipe to artifact: executed as the formats say."""

import numpy as np
import pytest

import backends
import passes
from passes.evaluate import outputs_of
from tests.helpers import TINY, tiny_graph

RECIPES = ["mxfp4", "nf4", "fp6"]


@pytest.mark.parametrize("model", list(TINY))
@pytest.mark.parametrize("recipe", RECIPES)
def test_artifact_computes_what_the_coded_graph_does(recipe, model, tmp_path):
    result = passes.run(tiny_graph(model), recipe, data=TINY[model].calibration(4))
    backends.build(result.graph, "ort").save(tmp_path / "net")
    loaded = backends.load(tmp_path / "net")
    for feed in TINY[model].evaluation(2):
        (wanted,) = outputs_of(result.graph, [feed])
        found = loaded.run(feed)
        assert set(found) == set(wanted)
        for name, value in found.items():
            assert np.abs(value - wanted[name]).max() <= 1e-4 * np.abs(wanted[name]).max()
