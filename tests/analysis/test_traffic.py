"""BOPs and memory traffic: Edge-ASR's own checks, on float and on quantized graphs."""

import numpy as np
import pytest
import torch
from torch import nn

import ir
import passes
from ir.analysis.cost import cost
from ir.analysis.traffic import cache_bytes, memory_io, stored_bytes
from ir.errors import PassError

WIDTHS = (64, 96, 32)
MACS = 8 * (64 * 96 + 96 * 32)


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32)).eval()
    return ir.capture(net, (torch.zeros(8, 64),))


def quantized(graph, pipeline):
    rng = np.random.default_rng(0)
    name = graph.graph.inputs[0].name
    data = [{name: rng.standard_normal((8, 64), np.float32)} for _ in range(2)]
    return passes.run(graph, pipeline, data=data).graph


@pytest.mark.parametrize(
    ("pipeline", "factor"),
    [
        ("clean", 256),
        ("w8a16", 8 * 16),
        ("w4a16", 4 * 16),
        ("w8a8_dynamic", 64),
        ("clean | place{w=i4@0x1*f32,a=u8@0*f32+u8,dynamic=true} | rtn", 32),
    ],
)
def test_bops_are_macs_times_the_bits_and_macs_stay(graph, pipeline, factor):
    found = cost(quantized(graph, pipeline))
    assert found.macs == MACS
    assert found.bops == factor * MACS
    assert found.nonlinear == cost(graph).nonlinear


def test_stored_bytes_count_codes_and_scales(graph):
    weights, biases = 64 * 96 + 96 * 32, 4 * (96 + 32)
    assert stored_bytes(quantized(graph, "clean")) == 4 * weights + biases
    assert stored_bytes(quantized(graph, "w8a16")) == weights + 4 * (96 + 32) + biases
    groups = weights // 32
    # half a byte per code, per group a 4-byte scale and half a byte of zero point
    assert stored_bytes(quantized(graph, "w4a16")) == weights // 2 + groups * 9 // 2 + biases


def test_memory_is_linear_in_tokens():
    steps = np.diff([memory_io(1000, 300, tokens, 50) for tokens in range(5)])
    assert set(steps) == {300}
    assert memory_io(1000, 300, 0) == 1000
    with pytest.raises(PassError):
        memory_io(1, 1, -1)


def test_a_cache_counts_its_bits_and_scales():
    shapes = {"k": (1, 3, 7, 5), "v": (1, 3, 7, 5)}
    assert cache_bytes(shapes, 16) == 2 * 210
    assert cache_bytes(shapes, 4, scale_bytes=84) == 105 + 84
