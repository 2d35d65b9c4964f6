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


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)


class Tapped(Two):
    """The inside of the branch is also an output, as the keys of a cache are."""

    def forward(self, x):
        h = self.a(x)
        return x + self.b(h), h


class Leaking(Two):
    """The inside of the branch is read outside it: no block."""

    def forward(self, x):
        h = self.a(x)
        return x + self.b(h), h.relu()


class Arithmetic(Two):
    """x + 0.1 x^3 has no weights, conv + conv skips nothing."""

    def forward(self, x):
        y = x + 0.1 * x * x * x
        return self.a(y) + self.b(y)


class Parallel(Two):
    """Attention and MLP side by side (GPT-J): one block of three summands."""

    def forward(self, x):
        return x + self.a(x.relu()) + self.b(x.relu())


@pytest.mark.parametrize(
    ("net", "count"), [(Tapped, 1), (Leaking, 0), (Arithmetic, 0), (Parallel, 1)]
)
def test_what_is_and_is_not_a_block(net, count):
    found = blocks(script_export(net(), (torch.zeros(2, 4),), 13))
    assert len(found) == count


def test_what_the_graph_puts_out_of_a_block_is_a_tap_and_its_exit_is_none():
    graph = script_export(Tapped(), (torch.zeros(2, 4),), 13)
    (block,) = blocks(graph)
    assert [v.name for v in (block.exit, *block.taps)] == [v.name for v in graph.graph.outputs]


class Level(Two):
    """Another level is added to a residual block, in one sum; both come from what is in front."""

    def forward(self, x):
        h = self.a(x.relu()).relu()
        return (h + self.b(h.sigmoid())) + x


def test_a_block_in_a_sum_with_another_level_lies_in_that_level():
    level, block = blocks(script_export(Level(), (torch.zeros(2, 4),), 13))
    assert (level.depth, block.depth) == (0, 1)
    assert {id(n) for n in block.nodes} < {id(n) for n in level.nodes}
    assert sum(n.op_type == "Gemm" for n in block.nodes) == 1


class Beside(Two):
    """Something from elsewhere (a time embedding) is added between the shortcut and the branch."""

    def forward(self, x, t):
        return x + (t + self.a(x.relu())) if self.first else x + t + self.a(x.relu())


@pytest.mark.parametrize("first", [True, False])
def test_what_comes_from_elsewhere_in_the_sum_is_a_side_input(first):
    net = Beside()
    net.first = first
    args = torch.zeros(2, 4), torch.zeros(2, 4)
    (block,) = blocks(script_export(net, args, 13, input_names=["x", "t"]))
    assert block.entry.name == "x"
    assert [v.name for v in block.side] == ["t"]


class Embedded(Two):
    """A linear layer and an embedding in one sum skip nothing."""

    def forward(self, x, t):
        return self.a(x) + t


def test_a_layer_with_an_embedding_added_is_no_block():
    args = torch.zeros(2, 4), torch.zeros(2, 4)
    assert not blocks(script_export(Embedded(), args, 13, input_names=["x", "t"]))


def test_the_graph_is_left_alone(resnet):
    before = str(onnx_ir.to_proto(resnet))
    blocks(resnet)
    assert str(onnx_ir.to_proto(resnet)) == before
