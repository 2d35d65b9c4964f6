"""Streams of real architectures; every map a stream admits is folded and the outputs compared."""

from collections import Counter

import pytest
import torch
from torch import nn

from ir.analysis.streams import streams
from tests.analysis.exporting import script_export
from tests.analysis.folding import check_folds
from tests.analysis.nets import Adaptive, Llama, ResNet18, ViT

IDS = torch.arange(10).reshape(2, 5), torch.arange(5).repeat(2, 1)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def varied(net):
    """Gains and biases all different, so that folding into the wrong place shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() == 1:
                p.copy_(torch.rand_like(p) + 0.5)
        for name, b in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.copy_(torch.rand_like(b) + 0.5)
    return net


GRAPHS = {
    "resnet": (lambda: varied(ResNet18(width=4, classes=5)), (noise(1, 3, 8, 8),)),
    "vit": (lambda: varied(ViT(layers=2)), (noise(2, 3, 16, 16),)),
    "llama": (lambda: varied(Llama(layers=2)), IDS),
    "adaptive": (lambda: varied(Adaptive()), (noise(2, 5, 16), noise(2, 16))),
}
OPEN = {
    "vit": {"x0": {0: "batch"}},
    "llama": {"x0": {0: "batch", 1: "length"}, "x1": {0: "batch", 1: "length"}},
    "adaptive": {"x0": {0: "batch", 1: "tokens"}, "x1": {0: "batch"}},
}
CASES = [*((name, False) for name in GRAPHS), *((name, True) for name in OPEN)]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}{'-open' * c[1]}")
def graph_and_feeds(request):
    name, free = request.param
    make, args = GRAPHS[name]
    names = [f"x{i}" for i in range(len(args))]
    graph = script_export(
        make(), args, 17, input_names=names, dynamic_axes=OPEN[name] if free else None
    )
    return graph, {n: a.numpy() for n, a in zip(names, args, strict=True)}, name


@pytest.mark.parametrize("goal", ["scale", "permute"])
def test_every_admitted_map_leaves_the_outputs_as_they_were(graph_and_feeds, goal):
    graph, feeds, kind = graph_and_feeds
    for stream in streams(graph, goal):
        assert (stream.blocked is None) == bool(stream.maps)
    tried = Counter(check_folds(graph, feeds, 1e-5, goal))
    assert tried["permute"] >= 2
    if goal == "scale":
        assert tried["scale"] >= 3
        assert bool(tried["shift"]) == (kind in ("vit", "adaptive"))


def summary(graph):
    return [
        (
            [f"{p.node.op_type}.{p.role}" for p in s.writers],
            [p.node.op_type for p in s.readers],
            s.maps,
        )
        for s in streams(graph)
        if s.blocked is None
    ]


def test_llama_offers_norm_gate_and_value_streams():
    found = summary(script_export(varied(Llama(layers=1)), IDS, 17))
    scale, both = frozenset({"scale"}), frozenset({"scale", "permute"})
    assert found == [
        (["Mul.weight"], ["MatMul"] * 3, scale),  # norm -> q, k, v
        (["MatMul.weight"], ["MatMul"], both),  # v -> o; q and k are cut where Slice computes
        (["Mul.weight"], ["MatMul"] * 2, scale),  # norm -> gate, up
        (["MatMul.weight"], ["MatMul"], scale),  # up (beside the gate) -> down
        (["Mul.weight"], ["MatMul"], scale),  # norm -> head
    ]


def test_parts_of_wide_layers_write_streams_and_a_norm_s_gain_is_shared():
    make, args = GRAPHS["adaptive"]
    graph = script_export(make(), args, 17, input_names=["x", "condition"])
    found = [s for s in streams(graph) if not s.blocked and s.pair is None]
    parts = [[(p.node.op_type, p.role, p.part) for p in s.writers] for s in found]
    assert [p for stream in parts for p in stream if p[2]] == [
        ("Gemm", "weight", (0, 16)),  # shift
        ("Gemm", "bias", (0, 16)),
        ("Add", "bias", (32, 48)),  # v
        ("MatMul", "weight", (32, 48)),
        ("Gemm", "weight", (48, 64)),  # the second shift
        ("Gemm", "bias", (48, 64)),
    ]
    assert len(found) == 4  # norm to q k v, v to out, norm to up, up to down
    assert all("scale" in s.maps for s in found)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.a(x)
        return self.b(h), torch.sigmoid(h)


def test_another_reader_blocks_and_is_named():
    graph = script_export(Odd(), (torch.zeros(2, 3, 4),), 17)
    blocked = [s.blocked for s in streams(graph)]
    assert blocked[0] is not None
    assert "from outside" in blocked[0]
    assert blocked[1] is not None
    assert blocked[1].startswith("Sigmoid '")
    assert blocked[1].endswith("sees the channels unscaled")
    assert all(not s.maps for s in streams(graph))
