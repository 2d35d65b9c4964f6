"""Learn the range of every weight group from the error that it leaves in its block's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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
from calib.replay.ste import fake_quantize, scale_and_zero
from ir import ops
from ir.errors import BackendError
from ir.formats import integer
from ir.graph import Graph, Node, array
from ir.qtype import QType
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, register
from passes.padding import valid_rows
from passes.probe import first_samples, in_batches
from passes.sites import Linear, decodes_of, linears

from .clip import MOVED, set_scale
from .limits import PAIRS
from .rtn import LIMIT

HELD = 0.25
"""The share of the batches that judge."""
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Site:
    """One encoded weight, and the ends of the ranges given (float64, of `QType.scale_shape`)."""

    encode: Node
    decoded: tuple[str, ...]
    weight: torch.Tensor
    qtype: QType
    low: torch.Tensor
    high: torch.Tensor

    @property
    def key(self) -> str:
        return self.decoded[0]


@register
@dataclass(frozen=True)
class LearnClip(Pass):
    """Learn both ends of each weight group's range against the float block's output.

    rewrite:  Encode(w, s, z) --> Encode(w, s', z'), and the same in its Decodes
    shapes:   s, z as `QType.scale_shape` of w
    options:  epochs: walks over the samples; rate: Adam's step size of the ends' logarithms;
              samples: of the calibration data; batch: samples in a step
    error:    held out, a block's squared error is never above that of the ranges it was given, nor
              is that of the model's outputs
    raises:   PassError naming the region when its loss is not finite; skips weights with a scale
              computed at run time, whose codes are moved or ruled by a kernel, and regions that the
              data do not lower
    source:   OmniQuant (learnable weight clipping), arXiv:2308.13137
    """

    name: ClassVar[str] = "learn_clip"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})
    optional: ClassVar[bool] = True

    epochs: int = 20
    rate: float = 0.01
    samples: int = 64
    batch: int = 4

    def run(self, graph: Graph, ctx: Ctx) -> None:
        places = _sites(graph, ctx)
        feeds = in_batches(first_samples(ctx.data or (), self.samples, graph), self.batch, graph)
        if not places or not feeds:
            return
        teacher = ctx.teacher()
        layers = {_name(site.node): site.node for site in linears(teacher)}
        parts = regions(teacher, list(layers.values()))
        replay = Replay(
            Executor(teacher), Executor(graph), feeds, rows=lambda feed: valid_rows(teacher, feed)
        )
        outputs = Outputs(replay, HELD)
        saved = Saved(ctx.checkpoint, work_key(graph, feeds, str(self), ctx.seed))
        learned: list[tuple[Site, Tensors]] = []
        for number, region in enumerate(parts):
            ctx.progress("learning ranges", number, len(parts))
            mine = list({s.key: s for n, s in places.items() if n in region.inner}.values())
            keys = {site.key for site in mine}  # a shared weight belongs to its first region
            places = {n: s for n, s in places.items() if s.key not in keys}
            if mine:
                learned += self._learn(region, mine, outputs, saved, ctx)
        for site in {s.key: s for s in places.values()}.values():
            ctx.skip(site.encode.inputs[0], "it lies in no region of the main graph")
        for site, ends in learned:
            set_scale(site.encode, *_numbers(site, ends), ctx)
            ctx.did(site.encode.inputs[0])
        saved.remove()

    def _learn(
        self, region: Region, sites: list[Site], outputs: Outputs, saved: Saved, ctx: Ctx
    ) -> list[tuple[Site, Tensors]]:
        """The sites whose ranges moved, with what moves the ends; later regions see them moved."""
        replay = outputs.replay
        ends = saved.done.get(region.name)
        if ends is None:
            try:
                cache = replay.enter(region)
            except BackendError as error:
                for site in sites:
                    ctx.skip(site.encode.inputs[0], f"{region.name}: {error.cause}")
                return []
            ends = self._trained(cache, sites, saved, outputs, ctx)
            saved.finish(region.name, ends)
        if not ends:
            for site in sites:
                ctx.skip(
                    site.encode.inputs[0],
                    "no range lowers its block's error on held-out data and keeps the outputs'",
                )
            return []
        for site in sites:
            scale, zero = scale_and_zero(*_range(site, ends), site.qtype)
            names = [v.name or "" for v in site.encode.inputs[1:] if v is not None]
            values = [scale] if zero is None else [scale, zero]
            pairs = list(zip(names, values, strict=True))
            replay.settle({n: _as_stored(v, i, site.qtype) for i, (n, v) in enumerate(pairs)})
        return [(site, ends) for site in sites]

    def _trained(
        self, cache: Cache, sites: list[Site], saved: Saved, outputs: Outputs, ctx: Ctx
    ) -> Tensors:
        """What moves the ends, by site; none where the ranges given are as good."""

        def replace(parameters: Tensors) -> dict[str, torch.Tensor]:
            return {
                name: tensor
                for site in sites
                for tensor in [_decoded(site, parameters)]
                for name in site.decoded
            }

        start = {f"{side}/{site.key}": t for site in sites for side, t in _start(site).items()}
        settings = Settings(self.epochs, self.rate, held=HELD, seed=ctx.seed)
        found = reconstruct(cache, start, replace, settings, saved=saved)
        better = found.epoch > 0 and outputs.accepts(replace(found.parameters))
        return found.parameters if better else {}


def _sites(graph: Graph, ctx: Ctx) -> dict[str, Site]:
    """Encoded weights by the names of the layers' outputs that they lead to."""
    found: dict[str, Site] = {}
    readers: dict[int, list[Linear]] = {}
    for site in linears(graph):
        readers.setdefault(id(site.weight.producer()), []).append(site)
    for encode in [n for n in graph.graph.all_nodes() if ops.is_op(n, "Encode")]:
        weight, source = array(encode.inputs[0]), encode.inputs[0]
        if weight is None:
            continue
        decodes = decodes_of(encode)
        reason = _refusal(encode, decodes)
        mine = [s for d in decodes or [] for s in readers.get(id(d), [])]
        if not reason and not mine:
            reason = "no linear layer reads it"
        if reason or decodes is None:
            ctx.skip(source, reason)
            continue
        qtype = ops.qtype_of(encode)
        numbers = weight.astype(np.float32)
        low, high = _ends(encode)
        names = tuple(d.outputs[0].name or "" for d in decodes)
        made = Site(encode, names, torch.from_numpy(numbers), qtype, low, high)
        found.update({_name(site.node): made for site in mine})
    return found


def _refusal(encode: Node, decodes: list[Node] | None) -> str:
    """Why the range of an encoded weight cannot be learned, or ''."""
    qtype = ops.qtype_of(encode)
    if array(encode.inputs[1]) is None:
        return "its scale is computed at run time"
    if decodes is None:
        return MOVED
    if not qtype.integer:
        return f"{qtype.element} has no range of whole steps"
    if encode.metadata_props.get(LIMIT) == PAIRS and qtype.element == "i8":
        return "its kernel's rule on the codes chooses the scale"
    return ""


def _name(node: Node) -> str:
    return node.outputs[0].name or ""


def _ends(encode: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """(low, high) of the ranges that the graph's scales (and zeros) cover, in float64."""
    qtype, inputs = ops.qtype_of(encode), encode.inputs
    scale = np.asarray(array(inputs[1]), np.float64)
    lowest, highest = qtype.limits
    zero = array(inputs[2]) if len(inputs) > 2 else None
    if zero is None:
        return torch.from_numpy(-scale * highest), torch.from_numpy(scale * highest)
    offset = zero.astype(np.float64)
    low, high = (lowest - offset) * scale, (highest - offset) * scale
    return torch.from_numpy(np.asarray(low)), torch.from_numpy(np.asarray(high))


def _start(site: Site) -> Tensors:
    """Logarithms of what the ends are multiplied by: nothing changes at 0. A symmetric range has
    one end."""
    sides = ("high",) if site.qtype.zero is None else ("low", "high")
    return {side: torch.zeros_like(site.high) for side in sides}


def _range(site: Site, parameters: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    high = torch.exp(parameters[f"high/{site.key}"]) * site.high
    if site.qtype.zero is None:
        return -high, high
    return torch.exp(parameters[f"low/{site.key}"]) * site.low, high


def _decoded(site: Site, parameters: Tensors) -> torch.Tensor:
    scale, zero = scale_and_zero(*_range(site, parameters), site.qtype)
    return fake_quantize(site.weight, scale, zero, site.qtype, narrow=True)


def _numbers(site: Site, parameters: Tensors) -> tuple[np.ndarray, np.ndarray | None]:
    """Scale and zero in the QType's types."""
    with torch.no_grad():
        scale, zero = scale_and_zero(*_range(site, parameters), site.qtype)
    stored = scale.numpy().astype(integer.scale_dtype(site.qtype))
    if zero is None or site.qtype.zero is None:
        return stored, None
    return stored, zero.numpy().astype(integer.dtype(site.qtype.zero))


def _as_stored(part: torch.Tensor, index: int, qtype: QType) -> torch.Tensor:
    """A scale (index 0) or zero point as the executor holds it."""
    if index == 0:
        kinds = {"f16": torch.float16, "bf16": torch.bfloat16}
        return part.detach().to(kinds.get(qtype.scales[0], torch.float32))
    return part.detach().to(torch.uint8 if (qtype.zero or "u")[0] == "u" else torch.int8)
