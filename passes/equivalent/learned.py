"""What the learned transforms share: a copy of the float graph that rounds as told, whose constants
are functions of a transform's parameters, trained region by region."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from backends.torch import Executor
from calib.replay import (
    Cache,
    Outputs,
    Region,
    Replay,
    Saved,
    Settings,
    reconstruct,
    regions,
    work_key,
)
from calib.replay.ste import extremes, fake_quantize, scale_and_zero
from ir.analysis.streams import Stream
from ir.edit import Edit
from ir.errors import BackendError
from ir.formats import integer
from ir.graph import Graph, Node, Value, array, clone, constant, rank
from ir.qtype import QType
from passes.core import Ctx
from passes.padding import valid_rows
from passes.place import at_rank
from passes.probe import first_samples, in_batches
from passes.rounding.clip_weights import group_extremes
from passes.sites import linears

HELD = 0.25
"""The share of the batches that judge."""
Tensors = Mapping[str, torch.Tensor]
Key = tuple[str, int]
"""A constant by where it is read: the name of a node, and which input of it."""


class Maps(Protocol):
    """The maps of one region's streams, as functions of parameters."""

    def starts(self) -> Sequence[Tensors]:
        """Parameters to begin with, first those that change nothing; the best are trained."""
        ...

    def constants(self, parameters: Tensors) -> Mapping[Key, torch.Tensor]:
        """The constants that the maps change."""
        ...


@dataclass(frozen=True)
class Formats:
    """The types that layers are rounded to in training: weights (as for a K x N matrix) and values,
    each None for float."""

    w: QType | None
    a: QType | None


@dataclass
class Student:
    """A copy of a float graph in which layers round weights and values; nodes keep their names.

    coded: of weights that carry codes the decoded value's name and their type; held: the name of
    each constant that maps may change, the node's own copy where several read one; made: the
    decoded values by name.
    """

    graph: Graph
    edit: Edit
    coded: dict[Key, tuple[str, QType]] = field(default_factory=dict)
    held: dict[Key, str] = field(default_factory=dict)
    made: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Student:
        copy = clone(graph)
        return cls(copy, Edit(copy))

    def nodes(self) -> dict[str, Node]:
        return {node.name or "": node for node in self.graph.graph}

    def numbers(self, key: Key) -> torch.Tensor:
        """A constant before any map, f32."""
        found = array(self.graph.graph.initializers[self.held[key]])
        assert found is not None
        return torch.from_numpy(found.astype(np.float32))

    def hold(self, keys: Sequence[Key]) -> None:
        """Give every constant to its node alone, so that a map concerns no other."""
        nodes = self.nodes()
        for name, index in keys:
            node = nodes[name]
            old = node.inputs[index]
            numbers = array(old)
            assert old is not None
            assert numbers is not None
            if len(old.uses()) > 1 or not old.is_initializer():
                new = self.edit.constant(numbers, f"{old.name}.own")
                self.edit.set_input(node, index, new)
                old = new
            self.held[name, index] = old.name or ""

    def code(self, formats: Formats) -> None:
        """Round the weights and inputs of all layers. Once, after `hold`."""
        values: dict[int, Value] = {}
        weights: dict[tuple[int, str], str] = {}
        for site in list(linears(self.graph)):
            node, place = site.node, (site.node.name or "", 1)
            if node.graph is not self.graph.graph or site.misfit(QType.parse("i8@0*f32")):
                continue
            if formats.w is not None:
                qtype = site.qtype(formats.w)
                name = weights.get((id(site.weight), str(qtype)))
                if name is None:
                    name = self._coded(site.weight, qtype, node)
                    weights[id(site.weight), str(qtype)] = name
                self.edit.set_input(node, 1, self.made[name])
                self.coded[place] = name, qtype
            if formats.a is not None and (formats.a.per_tensor or rank(site.x) is not None):
                made = values.get(id(site.x)) or self._dynamic(site.x, formats.a)
                values[id(site.x)] = made
                self.edit.set_input(node, 0, made)
        self.edit.finish()

    def _coded(self, weight: Value, qtype: QType, node: Node) -> str:
        numbers, name = array(weight), weight.name or "w"
        assert numbers is not None
        scale, zero = integer.scale_and_zero(*group_extremes(numbers, qtype), qtype)
        parts = [np.asarray(part) for part in (scale, zero) if part is not None]
        held = [self.edit.constant(part, f"{name}.range") for part in parts]
        first = self.graph.graph[0]
        encode = self.edit.quant("Encode", qtype, [weight, *held], like=name, before=first)
        decode = self.edit.quant(
            "Decode", qtype, [encode.outputs[0], *held], like=name, after=encode
        )
        self.made[decode.outputs[0].name or ""] = decode.outputs[0]
        return decode.outputs[0].name or ""

    def _dynamic(self, x: Value, pattern: QType) -> Value:
        """The value after rounding over ranges found as it runs, which follow what maps do."""
        qtype, name = at_rank(pattern, x), x.name or "x"
        scale = self.edit.quant("Scale", qtype, [x], like=name, behind=x)
        parts = list(scale.outputs)
        encode = self.edit.quant("Encode", qtype, [x, *parts], like=name, after=scale)
        decode = self.edit.quant(
            "Decode", qtype, [encode.outputs[0], *parts], like=name, after=encode
        )
        return decode.outputs[0]

    def replaced(self, constants: Mapping[Key, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Values of the student in place of its own: constants, and weights as they are rounded."""
        found = {}
        for key, tensor in constants.items():
            if key in self.coded:
                name, qtype = self.coded[key]
                scale, zero = scale_and_zero(*extremes(tensor, qtype), qtype)
                found[name] = fake_quantize(tensor, scale, zero, qtype, narrow=True)
            else:
                found[self.held[key]] = tensor
        return found


@dataclass(frozen=True)
class Learning:
    """Options that all learned transforms have: see `reconstruct`; `samples` in batches of
    `batch`."""

    epochs: int
    rate: float
    samples: int
    batch: int


def feeds_of(graph: Graph, ctx: Ctx, learning: Learning) -> list[dict[str, np.ndarray]]:
    """The batches that are learned from."""
    found = first_samples(ctx.data or (), learning.samples, graph)
    return in_batches(found, learning.batch, graph)


def region_of(found: Sequence[Region], names: Sequence[str]) -> Region | None:
    """The region in which all these values are computed, or None."""
    return next((r for r in found if names and r.inner.issuperset(names)), None)


def regions_with(graph: Graph, found: Sequence[Stream]) -> list[Region]:
    """The blocks, and between them the pairs of a node that writes a stream and the layer that
    reads it (the last norm and the head), in graph order."""
    blocks = regions(graph)
    order = {v.name: i for i, node in enumerate(graph.graph) for v in node.outputs}
    pairs = []
    for stream in found:
        ends = {id(p.node): p.node for p in (*stream.writers, *stream.readers)}
        names = [v.name or "" for node in ends.values() for v in node.outputs]
        if len(ends) != 2 or region_of(blocks, names) is not None or not order.keys() >= {*names}:
            continue
        first, last = sorted(ends.values(), key=lambda node: order[node.outputs[0].name])
        given = [v.name or "" for v in first.inputs if v is not None and constant(v) is None]
        pairs.append(Region((*given,), last.outputs[0].name or "", frozenset(names)))
    return sorted([*blocks, *pairs], key=lambda region: order[region.output])


def learn(
    student: Student,
    graph: Graph,
    parts: Sequence[Region],
    plans: Mapping[str, Callable[[], Maps]],
    feeds: list[dict[str, np.ndarray]],
    learning: Learning,
    options: str,
    what: str,
    ctx: Ctx,
) -> Iterator[tuple[str, Tensors | None, str]]:
    """(name of the region, its parameters, why there are none), region by region.

    plans: the maps of each region, made when it is its turn. Only regions with maps are entered.
    A region keeps its first start where neither another nor training lowers the error of its own
    output on held-out batches without raising that of the model's outputs.
    """
    parts = [region for region in parts if region.name in plans]
    replay = Replay(
        Executor(graph), Executor(student.graph), feeds, rows=lambda feed: valid_rows(graph, feed)
    )
    outputs = Outputs(replay, HELD)
    saved = Saved(ctx.checkpoint, work_key(graph, feeds, options, ctx.seed))
    for number, region in enumerate(parts):
        ctx.progress(what, number, len(parts))
        maps, found = plans[region.name](), saved.done.get(region.name)
        if found is None:
            try:
                cache = replay.enter(region)
            except BackendError as error:
                yield region.name, None, error.cause
                continue
            found = _trained(cache, maps, student, outputs, saved, learning, ctx.seed)
            saved.finish(region.name, found)
        if not found:
            replay.settle(student.replaced(maps.constants(maps.starts()[0])))
            yield region.name, None, "nothing learned lowers the error on held-out data"
            continue
        replay.settle(student.replaced(maps.constants(found)))
        yield region.name, found, ""
    saved.remove()


def _trained(
    cache: Cache, maps: Maps, student: Student, outputs: Outputs, saved: Saved,
    learning: Learning, seed: int,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """The best parameters; none where the first start is."""

    def replace(parameters: Tensors) -> dict[str, torch.Tensor]:
        return student.replaced(maps.constants(parameters))

    judged = [reconstruct(cache, start, replace, Settings(0, held=HELD)) for start in maps.starts()]
    first, best = judged[0], min(judged, key=lambda found: found.loss)
    settings = Settings(learning.epochs, learning.rate, held=HELD, seed=seed)
    found = reconstruct(cache, best.parameters, replace, settings, saved=saved)
    for each in (found, best):
        if each.loss < first.loss and outputs.accepts(replace(each.parameters)):
            return each.parameters
    return {}
