"""Idioms in graphs that real exporters wrote."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ir.analysis import idioms
from tests.analysis.exporting import assert_same, dynamo_export, script_export

C = 16


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, C))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def hand_layer_norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


class Attention(nn.Module):
    """Llama-like: two key heads for four query heads, rotary embedding, additive mask."""

    def __init__(self, heads=4, groups=2, width=C, eager=True):
        super().__init__()
        self.heads, self.groups, self.eager = heads, groups, eager
        self.d = width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, groups * self.d, bias=False)
        self.v = nn.Linear(width, groups * self.d, bias=False)

    def forward(self, x, mask, angles):
        b, s, _ = x.shape
        q = self.q(x).view(b, s, self.heads, self.d).transpose(1, 2)
        k = self.k(x).view(b, s, self.groups, self.d).transpose(1, 2)
        v = self.v(x).view(b, s, self.groups, self.d).transpose(1, 2)
        table = torch.cat((angles, angles), -1)[:, None]
        cos, sin = table.cos(), table.sin()
        q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
        repeat = self.heads // self.groups
        if repeat > 1:
            k, v = (
                t[:, :, None].expand(b, self.groups, repeat, s, self.d).reshape(b, -1, s, self.d)
                for t in (k, v)
            )
        if self.eager:
            scores = torch.matmul(q, k.transpose(2, 3)) * self.d**-0.5 + mask
            out = torch.matmul(torch.softmax(scores, -1), v)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return out.transpose(1, 2).reshape(b, s, -1)


class Zoo(nn.Module):
    """One of each, so that one export serves all."""

    def __init__(self):
        super().__init__()
        self.layer_norm = nn.LayerNorm(C, eps=1e-4)
        self.rms = RmsNorm()
        self.group_norm = nn.GroupNorm(4, C)
        with torch.no_grad():
            for p in self.parameters():
                p.add_(torch.linspace(0.1, 0.5, C))

    def forward(self, x, image):
        y = self.layer_norm(x)
        y = F.gelu(self.rms(y + 1))
        y = F.gelu(y * 3, approximate="tanh")
        y = hand_layer_norm(y)
        z = F.silu(y)
        z = z * torch.sigmoid(1.702 * z)
        z = F.normalize(z, dim=-1)
        g = F.hardswish(self.group_norm(image))
        return z, F.mish(g), F.hardsigmoid(g)


def zoo_feeds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, C)).astype(np.float32)
    image = rng.normal(size=(2, C, 3, 3)).astype(np.float32)
    return (torch.from_numpy(x), torch.from_numpy(image)), {"x": x, "image": image}


def check(graph, feeds):
    found = idioms.find(graph)
    for idiom in found:
        if not idiom.extra:
            assert_same(graph, idiom, feeds)
    inside = {id(node) for idiom in found for node in idiom.nodes}
    rest = (node.op_type for node in graph.graph if id(node) not in inside)
    return Counter(i.kind for i in found) + Counter(rest)


FULL = {
    "LayerNormalization": 2, "RMSNormalization": 1, "Gelu": 2, "Swish": 2, "LpNormalization": 1,
    "GroupNormalization": 1, "HardSwish": 1, "Mish": 1, "HardSigmoid": 1,
}  # fmt: skip


@pytest.mark.parametrize("opset", [11, 13, 16, 17, 20])
def test_the_torchscript_exporter(opset):
    args, feeds = zoo_feeds()
    graph = script_export(Zoo(), args, opset, input_names=["x", "image"])
    found = check(graph, feeds)
    assert {k: found[k] for k in FULL} == FULL


@pytest.mark.parametrize("opset", [18, 23])
def test_the_dynamo_exporter(opset):
    args, feeds = zoo_feeds()
    graph = dynamo_export(Zoo(), args, opset, input_names=["x", "image"])
    found = check(graph, feeds)
    assert {k: found[k] for k in FULL} == FULL


def attention_feeds():
    rng = np.random.default_rng(1)
    feeds = {
        "x": rng.normal(size=(2, 5, C)).astype(np.float32),
        "mask": np.triu(np.full((5, 5), -1e9, np.float32), 1)[None, None].repeat(2, 0),
        "angles": rng.uniform(0, 3, (2, 5, 2)).astype(np.float32),
    }
    return tuple(torch.from_numpy(a) for a in feeds.values()), feeds


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(("export", "opset"), [(script_export, 14), (script_export, 18)])
def test_attention_by_torchscript(export, opset, eager):
    args, feeds = attention_feeds()
    graph = export(Attention(eager=eager), args, opset, input_names=list(feeds))
    found = check(graph, feeds)
    assert (found["Attention"], found["RotaryEmbedding"]) == (1, 2)


@pytest.mark.parametrize("eager", [True, False])
def test_attention_by_dynamo(eager):
    args, feeds = attention_feeds()
    graph = dynamo_export(Attention(eager=eager), args, input_names=list(feeds))
    found = check(graph, feeds)
    assert (found["Attention"], found["RotaryEmbedding"]) == (1, 2)
