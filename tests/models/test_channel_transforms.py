"""Transforms of channels on the reference models: how many sites, and why not the rest."""

import re
from collections import Counter

import pytest

import passes
from tests.models.reference import SLOW, cleaned, drawn

OUTSIDE = {"the graph feeds from outside": 1}
CLIP = "Clip computes the channels in a way no map passes"
GELU = "Gelu computes the channels in a way no map passes"
PADDED = "Conv pads with zeros, which nothing is taken from"
PAIR = "it is contracted with another activation"
NORM = "no linear layer writes its channels"
PLAIN = "no ReLU lies on the way"
POOLED = "ReduceMean keeps what is subtracted from getting through"
OPEN = "unclip{share=1} | "
ABSORB = "collect{moments} | absorb_bias"

EXPECTED = {
    ("fashion_cnn", "equalize"): (9, OUTSIDE),
    ("fashion_vit", "equalize"): (4, OUTSIDE | {NORM: 9, PAIR: 4, GELU: 4}),
    ("dit", "equalize"): (13, OUTSIDE | {
        "Cos computes the channels in a way no map passes": 1,
        "Sin computes the channels in a way no map passes": 1,
        "Sigmoid sees the channels unscaled": 2, PAIR: 4, GELU: 4}),
    ("resnet18", "equalize"): (12, OUTSIDE),
    ("mobilenetv2", "equalize"): (7, OUTSIDE | {CLIP: 35}),
    ("mobilenetv2", f"{OPEN}equalize"): (42, OUTSIDE),
    ("efficientnet_lite0", "equalize"): (7, OUTSIDE | {CLIP: 33}),
    ("efficientnet_lite0", f"{OPEN}equalize"): (40, OUTSIDE),
    ("fashion_cnn", ABSORB): (0, OUTSIDE | {
        "Add keeps what is subtracted from getting through": 3, PADDED: 6}),
    ("resnet18", ABSORB): (0, OUTSIDE | {
        "MaxPool keeps what is subtracted from getting through": 1, PADDED: 8,
        "Add keeps what is subtracted from getting through": 3}),
    ("efficientnet_lite0", f"{OPEN}{ABSORB}"): (16, OUTSIDE | {PADDED: 16, PLAIN: 7, POOLED: 1}),
    ("fashion_vit", "reparam"): (9, {}),
    ("dit", "reparam"): (0, {"its channels cannot be shifted": 9}),
    ("fashion_vit", "split_channels{gain=0}"): (17, {}),
    ("dit", "split_channels{gain=0}"): (20, {}),
    ("resnet18", "split_channels{gain=0}"): (1, {}),
}  # fmt: skip


def reasons(skips) -> dict[str, int]:
    return dict(Counter(re.sub(r" '[^']*'| %\S+", "", skip.reason) for skip in skips))


@pytest.mark.parametrize(
    ("name", "pipeline"),
    [pytest.param(*key, marks=[pytest.mark.slow] if key[0] in SLOW else []) for key in EXPECTED],
)
def test_sites_and_reasons(name, pipeline):
    folded, refused = EXPECTED[name, pipeline]
    graph = cleaned(name)
    step = passes.run(graph, pipeline, data=drawn(name)[:1]).report.steps[-1]
    assert (len(step.sites), reasons(step.skips)) == (folded, refused)
    if step.effect == "EXACT":
        assert step.difference is not None
        assert step.difference <= 1e-5
