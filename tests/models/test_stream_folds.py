"""Random maps in all streams of the reference models at once leave the outputs as they were."""

import numpy as np
import pytest

import ir
from backends import reference
from ir.analysis.streams import streams
from ir.edit import Edit
from tests.analysis.folding import FOLDS
from tests.helpers import tiny_graph
from tests.models.reference import cleaned, drawn, params

LARGE = ("big24", "smollm2_off_grid", "terrain_unet", "ppocr_det", "mobilenetv2", "resnet18",
         "efficientnet_lite0", "whisper_encoder", "whisper_decoder", "whisper_cross")  # fmt: skip


def folded(graph, kind):
    """A copy with one random map in every stream that takes this kind, and how many that are."""
    own, rng = ir.clone(graph), np.random.default_rng(0)
    edit = Edit(own, "test")
    goal = "permute" if kind == "permute" else "scale"
    found = [s for s in streams(own, goal) if kind in s.maps]
    for stream in found:
        FOLDS[kind](stream, rng, edit)
    return own, len(found)


def error(graph, changed, feeds):
    """Largest difference of an output, relative to its largest magnitude, in double precision."""
    before, after = (reference.run(g, feeds, dtype=np.float64) for g in (graph, changed))
    assert set(before) == set(after)
    return max(np.abs(after[k] - v).max() / np.abs(v).max() for k, v in before.items())


@pytest.mark.parametrize("name", params(*LARGE))
@pytest.mark.parametrize("kind", sorted(FOLDS))
def test_all_streams_at_once(name, kind):
    graph = cleaned(name)
    feeds = drawn(name)[0]
    changed, count = folded(graph, kind)
    if count:
        assert error(graph, changed, feeds) <= 1e-5
    else:
        assert kind == "shift"


@pytest.mark.parametrize("kind", sorted(FOLDS))
def test_a_decoder_with_shared_heads_and_rotary_embedding(kind):
    import passes
    from passes.loop import Check

    graph = passes.run(tiny_graph("llama"), "clean", check=Check.NONE).graph
    feeds = {"input_ids": np.random.default_rng(0).integers(0, 100, (2, 9))}
    changed, count = folded(graph, kind)
    assert count == {"scale": 11, "shift": 0, "permute": 5}[kind]
    assert error(graph, changed, feeds) <= 1e-5
