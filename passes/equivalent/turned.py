"""A model whose weights are functions of rotations and scales, and whose values are rounded: what
`learn_rotation` trains. It is a copy; the graph itself is folded afterwards, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from backends.torch import Executor
from calib.replay.ste import fake_quantize, scale_and_zero
from ir.analysis.rotations import MatrixPort, MatrixStream, attention_streams, residual_streams
from ir.analysis.streams import Port
from ir.edit import Edit
from ir.fold.matrix import orthogonal
from ir.fold.online import online_refusal, put_online
from ir.graph import Graph, Node, Value, array, clone, rank
from ir.qtype import QType
from passes.place import at_rank
from passes.select import select
from passes.sites import Linear, linears

from .diagonal import Site, sites

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Options:
    """What is trained (see `learn_rotation`) and what is rounded meanwhile."""

    residual: bool
    heads: bool
    online: int
    scales: bool
    a: QType | None
    w: QType | None
    keep: tuple[str, ...]


def turnable(graph: Graph, options: Options) -> Iterator[tuple[MatrixStream, str]]:
    """Every stream that a rotation could map, and why it does not, or ''; always in one order."""
    found = residual_streams(graph) if options.residual else []
    found += attention_streams(graph) if options.heads else []
    for stream in found:
        yield stream, online_refusal(stream, options.online)


def scalable(graph: Graph) -> Iterator[tuple[Site, str]]:
    """Every input of layers, and why no scale folds into what writes it, or ''."""
    for site in sites(graph):
        grouped = site.stream is not None and any(p.groups > 1 for p in site.stream.writers)
        yield site, "a grouped convolution writes it" if grouped else site.refusal


@dataclass
class Slot:
    """One input of a node that rotations and scales are folded into, along these axes.

    turns: (parameter, where); scales: (parameter, where, whether it divides).
    """

    node: Node
    index: int
    turns: list[tuple[str, MatrixPort]] = field(default_factory=list)
    scales: list[tuple[str, Port, bool]] = field(default_factory=list)
    base: torch.Tensor | None = None
    rounded: QType | None = None


class Student:
    """turns, scales: the sizes of the parameters by name, `turn/0` and `scale/0` on, as numbered
    by `turnable` and `scalable` among what they do not refuse."""

    def __init__(self, graph: Graph, options: Options) -> None:
        copy = clone(graph)
        edit = Edit(copy)
        self.turns: dict[str, int] = {}
        self.scales: dict[str, int] = {}
        slots: dict[tuple[int, int], Slot] = {}
        diagonal = [s for s, no in scalable(copy) if not no] if options.scales else []
        for stream in [s for s, no in turnable(copy, options) if not no]:
            self._turn(stream, slots, edit)
        for site in diagonal:
            self._scale(site, slots)
        layers = _rounded_layers(copy, options)
        if options.w is not None:
            for layer in layers:
                _slot(slots, layer.node, 1).rounded = layer.qtype(options.w)
        self.slots = {}
        for slot in slots.values():
            self._own(slot, edit)
        if options.a is not None:
            round_values(layers, options.a, edit)
        edit.finish()
        self.executor = Executor(copy)

    def _turn(self, stream: MatrixStream, slots: dict, edit: Edit) -> None:
        name = f"turn/{len(self.turns)}"
        self.turns[name] = stream.size
        written, read = put_online(stream, orthogonal(lambda rows: rows), edit)
        for port in (*stream.writers, *written, *stream.readers, *read):
            _slot(slots, port.node, port.index).turns.append((name, port))

    def _scale(self, site: Site, slots: dict) -> None:
        stream = site.stream
        assert stream is not None
        name = f"scale/{len(self.scales)}"
        self.scales[name] = stream.channels
        for ports, divides in ((stream.writers, True), (stream.readers, False)):
            for port in ports:
                slot = _slot(slots, port.node, port.input)
                slot.scales.append((name, port, divides != port.inverse))

    def _own(self, slot: Slot, edit: Edit) -> None:
        """A constant of its own for a slot: others that read the old one may need other numbers."""
        old = slot.node.inputs[slot.index]
        numbers = array(old)
        assert old is not None
        assert numbers is not None
        if not np.any(numbers):
            return  # zero stays zero
        new = edit.constant(numbers, f"{old.name}.learned", at=slot.node)
        edit.set_input(slot.node, slot.index, new)
        slot.base = torch.from_numpy(np.ascontiguousarray(numbers, np.float32))
        self.slots[str(new.name)] = slot

    def weights(self, parameters: Tensors) -> dict[str, torch.Tensor]:
        """Initializers of the student for these parameters: rotations f64[n, n], scales as their
        logarithms f64[n]."""
        single = {
            name: (p.exp() if name in self.scales else p).float() for name, p in parameters.items()
        }
        return {name: composed(slot, single) for name, slot in self.slots.items()}


def _slot(slots: dict[tuple[int, int], Slot], node: Node, index: int) -> Slot:
    return slots.setdefault((id(node), index), Slot(node, index))


def composed(slot: Slot, parameters: Tensors) -> torch.Tensor:
    """The constant of a slot: turned, then scaled, then rounded; `ir.fold` in torch."""
    assert slot.base is not None
    x = slot.base
    axes = x.ndim
    for _, port in slot.turns:
        x = spread(x, port)
    for name, port in slot.turns:
        x = along(x, port, parameters[name])
    for name, port, divides in slot.scales:
        s = parameters[name]
        if port.index is not None:  # places without a channel, -1, take the 1 behind the last
            s = torch.cat([s, s.new_ones(1)])[torch.from_numpy(port.index)]
        s = s.reshape(-1, *[1] * (axes - 1 - port.axis % axes))
        x = x / s if divides else x * s
    return x if slot.rounded is None else rounded(x, slot.rounded)


def spread(x: torch.Tensor, port: MatrixPort) -> torch.Tensor:
    """The tensor with the port's axis at full length."""
    shape = [1] * (-port.axis - x.ndim) + list(x.shape)
    shape[port.axis] = port.length
    return x.expand(shape)


def along(x: torch.Tensor, port: MatrixPort, matrix: torch.Tensor) -> torch.Tensor:
    """Every vector of `port.size` channels along the port's axis times the matrix."""
    moved = x.movedim(port.axis, -1)
    first, last = port.part or (0, port.length)
    vectors = moved[..., first:last]
    turned = (vectors.reshape(-1, port.size) @ matrix).reshape(vectors.shape)
    if port.part is not None:
        turned = torch.cat([moved[..., :first], turned, moved[..., last:]], -1)
    return turned.movedim(-1, port.axis)


def rounded(weight: torch.Tensor, qtype: QType) -> torch.Tensor:
    """The weight to nearest in whole ranges of its groups, with gradients straight through."""
    low = high = weight
    for axis, size in enumerate(qtype.block):
        low, high = (_over(part, axis, size, top) for part, top in ((low, False), (high, True)))
    if qtype.per_tensor:
        low, high = weight.min(), weight.max()
    scale, zero = scale_and_zero(low, high, qtype)
    return fake_quantize(weight, scale, zero, qtype, narrow=True)


def _over(part: torch.Tensor, axis: int, size: int, top: bool) -> torch.Tensor:
    """The least (or greatest) of every block along an axis; 0: of all of it."""
    if size == 1:
        return part
    blocks = part.split(size or part.shape[axis], axis)
    return torch.cat([(b.amax if top else b.amin)(axis, keepdim=True) for b in blocks], axis)


def _rounded_layers(graph: Graph, options: Options) -> list[Linear]:
    """Layers whose values and weights are rounded: those that read rows of channels."""
    found = [s for s in linears(graph) if s.node.op_type in ("MatMul", "Gemm") and rank(s.x)]
    nodes = [site.node for site in found]
    kept = {key for text in options.keep for key in select(text, nodes)}
    return [site for site in found if id(site.node) not in kept]


def round_values(layers: list[Linear], pattern: QType, edit: Edit) -> None:
    """Scale, Encode and Decode at the inputs of layers: one for all that read a value."""
    made: dict[int, Value] = {}
    for layer in layers:
        x, name = layer.x, str(layer.x.name)
        if id(x) not in made:
            qtype = at_rank(pattern, x)
            scale = edit.quant("Scale", qtype, [x], like=name, behind=x)
            parts = scale.outputs
            encode = edit.quant("Encode", qtype, [x, *parts], like=name, after=scale)
            codes = [encode.outputs[0], *parts]
            made[id(x)] = edit.quant("Decode", qtype, codes, like=name, after=encode).outputs[0]
        edit.set_input(layer.node, 0, made[id(x)])
