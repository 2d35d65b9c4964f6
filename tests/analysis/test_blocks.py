"""Blocks of real architectures, and of small graphs that look like blocks but are none."""

from collections import Counter
from itertools import pairwise

import onnx_ir
import pytest
import torch
from torch import nn

from ir.analysis.blocks import blocks
from tests.analysis.exporting import script_export
from tests.analysis.nets import Llama, ResNet18, UNet, ViT


def kinds(found):
    return dict(Counter(b.kind for b in found))


@pytest.fixture(scope="module")
def resnet():
    return script_export(ResNet18(width=4, classes=5), (torch.zeros(1, 3, 16, 16),), 13)


def test_resnet18_has_eight_residual_blocks_three_of_them_projected(resnet):
    found = blocks(resnet)
    assert kinds(found) == {"residual": 8}
    convs = [sum(n.op_type == "Conv" for n in b.nodes) for b in found]
    assert convs == [2, 2, 3, 2, 3, 2, 3, 2]
    assert all(not b.side and b.depth == 0 for b in found)


def test_consecutive_blocks_of_resnet_meet(resnet):
    found = blocks(resnet)
    for block, following in pairwise(found):
        relu = following.entry.producer()
        assert relu is not None
        assert relu.inputs[0] is block.exit


@pytest.mark.parametrize("opset", [13, 17])
def test_vit_has_two_residual_blocks_a_layer(opset):
    found = blocks(script_export(ViT(layers=3), (torch.zeros(2, 3, 16, 16),), opset))
    assert kinds(found) == {"residual": 6}
    assert [sum(n.op_type == "MatMul" for n in b.nodes) for b in found] == [6, 2] * 3
    assert all(a.exit is b.entry for a, b in pairwise(found))
    assert all(not b.side for b in found)


def test_llama_lists_mask_and_rotary_tables_as_side_inputs():
    args = torch.zeros(2, 5, dtype=torch.int64), torch.arange(5).repeat(2, 1)
    graph = script_export(Llama(layers=3), args, 14, input_names=["ids", "positions"])
    found = blocks(graph)
    assert kinds(found) == {"residual": 6}
    assert [len(b.side) for b in found] == [3, 0] * 3
    producers = {v.producer().op_type for v in found[0].side if v.producer() is not None}  # pyright: ignore
    assert producers == {"Cos", "Sin", "Where"}


def test_unet_nests_its_levels_and_lists_the_time_embedding():
    args = torch.zeros(1, 3, 16, 16), torch.zeros(1, 4)
    found = blocks(script_export(UNet(), args, 13, input_names=["x", "t"]))
    assert kinds(found) == {"residual": 5, "skip": 2}
    outer, inner = (b for b in found if b.kind == "skip")
    assert (outer.depth, inner.depth) == (0, 1)
    assert {id(n) for n in inner.nodes} < {id(n) for n in outer.nodes}
    assert all(len(b.side) == 1 for b in found if b.kind == "residual")
    assert sorted(b.depth for b in found if b.kind == "residual") == [0, 0, 1, 1, 2]


class Leaking(nn.Module):
    """The inside of the branch is also an output: no block."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.a(x)
        return x + self.b(h), h


class Arithmetic(nn.Module):
    """x + 0.1 x^3 has no weights, conv + conv skips nothing."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        y = x + 0.1 * x * x * x
        return self.a(y) + self.b(y)


class Parallel(nn.Module):
    """Attention and MLP side by side (GPT-J): one block of three summands."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.a(x.relu()) + self.b(x.relu())


@pytest.mark.parametrize(("net", "count"), [(Leaking, 0), (Arithmetic, 0), (Parallel, 1)])
def test_what_is_and_is_not_a_block(net, count):
    found = blocks(script_export(net(), (torch.zeros(2, 4),), 13))
    assert len(found) == count


def test_the_graph_is_left_alone(resnet):
    before = str(onnx_ir.to_proto(resnet))
    blocks(resnet)
    assert str(onnx_ir.to_proto(resnet)) == before
