"""Blocks, norms and streams of every reference model after `clean`: as many as its layers say.

Every number is argued from the architecture beside it. L: layers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from ir.analysis.blocks import blocks
from ir.analysis.streams import residuals, streams
from tests.models.reference import cleaned, params

NORMS = ("LayerNormalization", "RMSNormalization", "InstanceNormalization")


@dataclass(frozen=True)
class Counts:
    """residual, gate, skip: blocks by kind; inside: blocks that lie in another one; taps: values
    that the graph puts out of a block; norms: those that are not folded into convolutions;
    along: blocks along every residual stream, the longest first; streams: channels that layers
    contract, or queries with keys, together with how many of them take a map; orders: the same for
    an order of the channels, which joins more of them; None: not argued"""

    residual: int
    along: tuple[int, ...]
    streams: tuple[int, int] | None
    orders: tuple[int, int] | None = None
    norms: int = 0
    gate: int = 0
    skip: int = 0
    inside: int = 0
    taps: int = 0


def pre_norm(
    layers: int,
    more: tuple[int, int],
    orders: tuple[int, int],
    last: int = 1,
    gated: bool = False,
) -> Counts:
    """x + attention(norm(x)), x + mlp(norm(x)): 2 blocks and norms a layer on one stream, and a
    last norm. norm to q k v, q beside k, v to o, norm to up and up to down are the streams; through
    GELU the last takes no factor, beside a gate it does. An order passes GELU and gates, and of
    norms one order is all the residual stream's: q beside k, v to o and up to down are left.
    `more`, `orders`: those outside the layers."""
    total, takes = 5 * layers + more[0], (5 if gated else 4) * layers + more[1]
    found = (3 * layers + orders[0], 3 * layers + orders[1])
    return Counts(2 * layers, (2 * layers,), (total, takes), found, norms=2 * layers + last)


MODELS = {
    # Five inverted bottlenecks, the 2nd and 4th with a shortcut. 18 layers; each shortcut makes two
    # layers read one stream: 16. ReLU6 clips at one number: only the 3 bottleneck outputs and the
    # mean of a ReLU take a map. An order passes ReLU6 and depthwise convolutions: the stem's, 5
    # inside the bottlenecks and the last layer's are streams too.
    "digits_cnn": Counts(2, (1, 1), (16, 4), (11, 4 + 6)),
    # L = 6; patch convolution reads the picture, no map; the head one token of the last norm's. The
    # residual stream takes an order from there to the class token and the positions.
    "digits_vit": pre_norm(6, more=(2, 1), orders=(2, 1)),
    # 3 stages of 2 blocks; ReLU follows every sum, so only the 4 direct shortcuts are streams, of
    # one block each. Inside the blocks 6, after each stage 1 (its ReLU passes), the picture 1.
    "fashion_cnn": Counts(6, (1, 1, 1, 1), (10, 9), (10, 9)),
    # L = 4; its token is taken before the last norm; as digits_vit.
    "fashion_vit": pre_norm(4, more=(2, 1), orders=(2, 1)),
    # L = 4, each norm adaptive and each branch gated by parts of a wide layer. Beside the layers:
    # picture, time twice, of which the first is a cosine and a sine, the condition (5 wide layers
    # read it), and the last adaptive norm, which alone of these takes a map. An order is taken by
    # the residual stream and what modulates it, the time (the frequencies of cosine and sine being
    # one), its hidden layer and the condition, not by the picture.
    "dit": pre_norm(4, more=(6, 1), orders=(5, 4)),
    # 8 blocks, 3 projected; 5 direct ones between ReLUs. Inside 8, stages 4, the picture 1.
    "resnet18": Counts(8, (1,) * 5, (13, 12), (13, 12)),
    # Inverted bottlenecks repeated 1 2 3 4 3 3 1 times: n - 1 shortcuts each. 52 convolutions and
    # a head; 10 shortcuts join readers. The 7 linear bottlenecks' outputs take a map, ReLU6 none.
    # An order joins what is in front of and behind a depthwise convolution: 1 in each of the 17
    # bottlenecks, with the outputs and the last layer's 25, and the picture.
    "mobilenetv2": Counts(10, (3, 2, 2, 2, 1), (43, 7), (26, 17 + 7 + 1)),
    # The same at 1 2 2 3 3 4 1: 49 convolutions and a head, 9 shortcuts, 16 bottlenecks.
    "efficientnet_lite0": Counts(9, (3, 2, 2, 1, 1), (41, 7), (25, 16 + 7 + 1)),
    # PP-LCNet of 5 stages of 2 feed-forward residuals, each stage's first behind a squeeze-excite
    # gate; a neck of 8 x + gate(x), each holding its gate; the stem joins pooling and convolutions.
    "ppocr_det": Counts(18, (1,) * 18, None, gate=5 + 8, skip=1, inside=8),
    # EDM U-Net of 5 levels: down, 4 blocks a level and 4 between levels; up, 5 and 4; 2 in the
    # middle: 55 blocks of 2 norms, modulated by the time. An attention of 1 norm behind every block
    # of the lower 3 levels, and 1 in the middle: 4 * 3 + 5 * 3 + 1 = 28. A last norm.
    # Direct shortcuts, on the way down: 4 blocks each on levels 1 and 2; on 3, 4, 5 all but the
    # first, which widens, with attentions 7, the last with the middle 10. On the way up every
    # block narrows a Concat, so 15 attentions alone.
    # The stem and the 24 results on the way down are kept: 25 levels in each other, and in all of
    # them lies everything but the outermost and the last block.
    # 196 convolutions and 59 Gemm, of which 55 read one condition, and one a cosine and a sine.
    # SiLU takes no map, so only the norms of the attentions do: what is joined on the way up goes
    # into a norm over groups of both.
    "terrain_unet": Counts(
        55 + 28,
        (10, 7, 7, 4, 4, *(1,) * 15),
        (196 + 59 - 54 + 1, 28),
        norms=2 * 55 + 28 + 1,
        skip=25,
        inside=55 + 28 + 25 - 2,
    ),
    # L = 6, post-norm: each sum goes into a norm, which the next block adds to: 12 streams of one
    # block. A norm that a sum reads takes no map, GELU neither: q beside k and v to o are left.
    # Embeddings' norm. What all blocks add to goes out, and takes no order.
    "minilm": Counts(12, (1,) * 12, (5 * 6, 2 * 6), (3 * 6 + 1, 3 * 6), norms=12 + 1),
    # L = 4; two convolutions in front with GELU between, which an order passes; the last norm is
    # the output, so the residual stream takes none.
    "whisper_encoder": pre_norm(4, more=(2, 0), orders=(3, 1)),
    # Eight projections of one input.
    "whisper_cross": Counts(0, (), (1, 0), (1, 0)),
    # L = 4 of self-attention, cross-attention, mlp. Keys and values go out: 2 taps a layer, and v
    # is read behind the cache: no map, nor for the given cross keys and values, neither for the
    # queries beside them. Head behind the last norm. mlp and the residual stream take an order.
    "whisper_decoder": Counts(12, (12,), (8 * 4 + 1, 3 * 4 + 1), (21, 4 + 1), norms=13, taps=8),
    # L = 30, gated; keys and values are taps, read behind the cache: q beside k and v take no map.
    "smollm2_off_grid": Counts(
        60, (60,), (5 * 30 + 1, 3 * 30 + 1), (3 * 30 + 1, 30 + 1), norms=61, taps=60
    ),
    # L = 24, gated, no cache: q beside k (pairs of rotated channels) and v to o take a map as well;
    # the head. Computed tables of angles take no order.
    "big24": pre_norm(24, more=(1, 1), orders=(1, 1 - 24), gated=True),
}


@pytest.mark.parametrize("name", params())
def test_structure_is_the_architecture(name):
    graph, want = cleaned(name), MODELS[name]
    found = blocks(graph)
    kinds = Counter(b.kind for b in found)
    assert kinds == Counter(residual=want.residual, gate=want.gate, skip=want.skip)
    assert sum(len(b.taps) for b in found) == want.taps
    assert sum(b.depth > 0 for b in found) == want.inside
    assert sum(n.op_type in NORMS for n in graph.graph) == want.norms
    along = residuals(graph)
    assert tuple(len(r.blocks) for r in along) == want.along
    assert all(len(r.added) == len(r.blocks) == len(r.values) - 1 for r in along)
    if want.streams is not None:
        assert counted(streams(graph)) == want.streams
    if want.orders is not None:
        assert counted(streams(graph, "permute")) == want.orders


def counted(found):
    return len(found), sum(s.blocked is None for s in found)


def test_every_model_is_counted():
    assert {p if isinstance(p, str) else p.values[0] for p in params()} == set(MODELS)


PRE_NORM = ["digits_vit", "fashion_vit", "dit", "whisper_encoder", "whisper_decoder",
            "smollm2_off_grid", "big24"]  # fmt: skip


@pytest.mark.parametrize(
    "name", [p for p in params() if (p if isinstance(p, str) else p.values[0]) in PRE_NORM]
)
def test_only_norms_read_the_residual_stream_of_a_pre_norm_transformer(name):
    (stream,) = residuals(cleaned(name))
    token = {"Gather"} if name == "fashion_vit" else set()  # taken before the last norm
    assert {n.op_type for n in stream.readers} - set(NORMS) == token
    assert len(stream.readers) == len(stream.values)


def test_parts_of_wide_layers_write_the_streams_of_the_diffusion_transformer():
    found = [s for s in streams(cleaned("dit")) if not s.blocked and s.pair is None]
    adaptive = [s for s in found if any(p.node.op_type == "LayerNormalization" for p in s.writers)]
    values = [s for s in found if s not in adaptive]
    # shift is the first, scale the second, gate the third of three: only shift writes the channels
    assert [p.part for s in adaptive for p in s.writers if p.part] == [
        (at, at + 128) for at in [*([0] * 2 + [3 * 128] * 2) * 4, *([0] * 2)]
    ]
    assert [p.part for s in values for p in s.writers] == [(256, 384)] * 8  # q, k, v; bias, weight
