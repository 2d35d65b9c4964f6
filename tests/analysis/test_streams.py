"""Streams of real architectures; every map a stream admits is folded and the outputs compared."""

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from ir.analysis.streams import streams
from tests.analysis.exporting import script_export, values_of
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


def changed(graph, ports, change):
    """A copy of the graph whose port tensors are `change(array, axis, role, is_writer)`, where the
    port is a part of the tensor in that part alone."""

    def altered(array, port, writer):
        whole = array.copy()
        place = (slice(None),) * port.axis + (slice(*(port.part or (None, None))),)
        whole[place] = change(array[place], port.axis, port.role, writer)
        return whole

    own = graph.clone()
    for writer, port in ports:
        value = own.graph.initializers.get(port.tensor.name)
        if value is None:
            node = next(n for n in own.graph if any(o.name == port.tensor.name for o in n.outputs))
            tensor = node.attributes["value"].as_tensor()
            new = altered(tensor.numpy(), port, writer)
            node.attributes["value"] = onnx_ir.AttrTensor("value", onnx_ir.tensor(new))
        else:
            array = value.const_value.numpy()
            value.const_value = onnx_ir.tensor(altered(array, port, writer))
    return own


def ports_of(stream):
    return [(True, p) for p in stream.writers] + [(False, p) for p in stream.readers]


def along(vector, array, axis):
    return vector.reshape([-1 if i == axis else 1 for i in range(array.ndim)])


def test_every_admitted_map_leaves_the_outputs_as_they_were(graph_and_feeds):
    graph, feeds, _ = graph_and_feeds
    want = values_of(graph, feeds, list(graph.graph.outputs))[0]
    rng = np.random.default_rng(0)
    tried = 0
    for stream in streams(graph):
        assert (stream.blocked is None) == bool(stream.maps)
        channels = int(stream.value.shape[stream.axis])
        s = rng.uniform(0.5, 2, channels).astype(np.float32)
        # no channel stays where it is, so one live channel is enough to see the change
        order = np.roll(np.arange(channels), int(rng.integers(1, channels)))

        def scale(array, axis, role, writer, s=s):
            return array / along(s, array, axis) if writer else array * along(s, array, axis)

        def permute(array, axis, role, writer, order=order):
            return np.take(array, order, axis)

        for name, change in (("scale", scale), ("permute", permute)):
            if name in stream.maps:
                got = values_of(changed(graph, ports_of(stream), change), feeds,
                                list(graph.graph.outputs))[0]  # fmt: skip
                np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
                tried += 1
                # the map really is at work: the stream itself has changed
                old, new = (values_of(g, feeds, [stream.value])[0]
                            for g in (graph, changed(graph, ports_of(stream), change)))  # fmt: skip
                assert np.abs(old - new).max() > 1e-3 * np.abs(old).max()
    assert tried >= 3


def test_a_shift_of_the_writers_biases_shifts_the_stream_and_nothing_else(graph_and_feeds):
    graph, feeds, kind = graph_and_feeds
    shifted = [s for s in streams(graph) if "shift" in s.maps]
    assert bool(shifted) == (kind in ("vit", "adaptive"))
    for stream in shifted:
        t = np.linspace(-1, 1, int(stream.value.shape[stream.axis])).astype(np.float32)

        def move(array, axis, role, writer, t=t):
            return array - along(t, array, axis) if writer and role == "bias" else array

        ports = [p for p in ports_of(stream) if p[0]]
        old = values_of(graph, feeds, [stream.value])[0]
        new = values_of(changed(graph, ports, move), feeds, [stream.value])[0]
        np.testing.assert_allclose(new, old - along(t, old, stream.axis), atol=1e-5)


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
    scale = frozenset({"scale"})
    assert found == [
        (["Mul.weight"], ["MatMul"] * 3, scale),  # norm -> q, k, v
        (["MatMul.weight"], ["MatMul"], scale),  # v -> o
        (["Mul.weight"], ["MatMul"] * 2, scale),  # norm -> gate, up
        (["MatMul.weight"], ["MatMul"], scale),  # up (beside the gate) -> down
        (["Mul.weight"], ["MatMul"], scale),  # norm -> head
    ]


def test_parts_of_wide_layers_write_streams_and_a_norm_s_gain_is_shared():
    make, args = GRAPHS["adaptive"]
    graph = script_export(make(), args, 17, input_names=["x", "condition"])
    found = [s for s in streams(graph) if not s.blocked]
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
