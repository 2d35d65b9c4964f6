"""What rounders that learn region by region share: the sites, the regions, the walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from backends.torch import Executor
from calib.replay import Cache, Region, Replay, Saved, regions
from calib.replay.ste import expand
from ir import ops
from ir.errors import BackendError
from ir.graph import Graph, Node, array, constant
from ir.qtype import QType
from passes.core import Ctx
from passes.padding import valid_rows
from passes.sites import decodes_of, linears

from .clip import MOVED
from .rtn import encodes, ruled

Tensors = Mapping[str, torch.Tensor]
ACTIVATIONS = frozenset(
    ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "Gelu", "HardSwish", "HardSigmoid")
)


@dataclass(frozen=True)
class Site:
    """One encoded weight with its scale and zero (0 where there is none) per element, float32;
    decoded: the values that hold it decoded."""

    encode: Node
    decoded: tuple[str, ...]
    weight: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    qtype: QType

    @property
    def key(self) -> str:
        return self.decoded[0]

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code of a weight: symmetric ones leave the most negative unused."""
        low, high = self.qtype.limits
        return (-high, high) if self.qtype.zero is None and self.qtype.signed else (low, high)


def sites(graph: Graph, skip: Callable[[Node, str], None]) -> dict[str, Site]:
    """Encoded weights by the names of the linear layers' outputs that they lead to; the others
    are told to `skip` with the reason."""
    readers: dict[int, list[str]] = {}
    for layer in linears(graph):
        readers.setdefault(id(layer.weight.producer()), []).append(_name(layer.node))
    found: dict[str, Site] = {}
    for encode in encodes(graph):
        decodes = decodes_of(encode)
        mine = [name for d in decodes or [] for name in readers.get(id(d), [])]
        reason = _refusal(encode, decodes) or ("" if mine else "no linear layer reads it")
        if reason:
            skip(encode, reason)
            continue
        made = _site(encode, decodes or [])
        found.update(dict.fromkeys(mine, made))
    return found


def _refusal(encode: Node, decodes: list[Node] | None) -> str:
    qtype = ops.qtype_of(encode)
    if array(encode.inputs[1]) is None:
        return "its scale is computed at run time"
    if decodes is None:
        return MOVED
    if not qtype.integer:
        return f"{qtype.element} has no whole steps"
    return "its kernel's rule on the codes chooses them" if ruled(encode) else ""


def _site(encode: Node, decodes: list[Node]) -> Site:
    qtype = ops.qtype_of(encode)
    weight, scale = (np.asarray(array(v), np.float32) for v in encode.inputs[:2])
    zero = array(encode.inputs[2]) if len(encode.inputs) > 2 else None
    numbers = torch.from_numpy(weight.copy())
    offset = np.zeros_like(scale) if zero is None else zero.astype(np.float32)
    scales, zeros = (
        expand(torch.from_numpy(np.array(part)), numbers.shape, qtype) for part in (scale, offset)
    )
    names = tuple(_name(decode) for decode in decodes)
    return Site(encode, names, numbers, scales, zeros, qtype)


def areas(teacher: Graph, blocks: bool) -> list[Region]:
    """Residual blocks and the layers outside of them; without `blocks`, each layer with the
    activation behind it."""
    layers = [site.node for site in linears(teacher)]
    if blocks:
        return regions(teacher, layers)
    here = set(map(id, teacher.graph))
    return [_layer(node) for node in layers if id(node) in here]


def _layer(node: Node) -> Region:
    inputs = [v.name or "" for v in node.inputs if v is not None and constant(v) is None]
    inner = {_name(node)}
    uses = node.outputs[0].uses()
    after = next(iter(uses)).node if len(uses) == 1 else None
    if (
        after is not None and after.op_type in ACTIVATIONS and not after.domain
        and after.graph is node.graph and not node.outputs[0].is_graph_output()
        and all(constant(v) is not None for v in after.inputs[1:] if v is not None)
    ):  # fmt: skip
        inner.add(_name(after))
        return Region(tuple(inputs), _name(after), frozenset(inner))
    return Region(tuple(inputs), _name(node), frozenset(inner))


@dataclass
class Walk:
    """Goes from region to region; what a region learned is settled before the next one.

    learn: (cache, sites) -> {site's key: result}, empty where nothing was gained; decoded:
    (site, result) -> the tensor that the site's Decodes then give.
    """

    graph: Graph
    ctx: Ctx
    feeds: Sequence[Mapping[str, np.ndarray]]
    saved: Saved

    def run(
        self, parts: Sequence[Region], places: Mapping[str, Site], what: str,
        learn: Callable[[Cache, list[Site]], Tensors],
        decoded: Callable[[Site, torch.Tensor], torch.Tensor],
    ) -> Iterator[tuple[Site, torch.Tensor | str]]:  # fmt: skip
        """Every site once, with its result or the reason that it has none."""
        teacher = self.ctx.teacher()
        replay = Replay(
            Executor(teacher), Executor(self.graph), self.feeds,
            rows=lambda feed: valid_rows(teacher, feed),
        )  # fmt: skip
        waiting = {site.key: site for site in places.values()}
        for number, region in enumerate(parts):
            self.ctx.progress(what, number, len(parts))
            keys = {places[name].key for name in region.inner if name in places}
            mine = [waiting.pop(key) for key in sorted(keys & waiting.keys())]
            if not mine:
                continue
            found = self._enter(region, mine, replay, learn)
            for site in mine:
                if isinstance(found, str):
                    yield site, found
                    continue
                tensor = decoded(site, found[site.key])
                replay.settle(dict.fromkeys(site.decoded, tensor))
                yield site, found[site.key]
        for site in waiting.values():
            yield site, "it lies in no region of the main graph"

    def _enter(
        self, region: Region, mine: list[Site], replay: Replay,
        learn: Callable[[Cache, list[Site]], Tensors],
    ) -> Tensors | str:  # fmt: skip
        found = self.saved.done.get(region.name)
        if found is None:
            try:
                cache = replay.enter(region)
            except BackendError as error:
                return f"{region.name}: {error.cause}"
            found = learn(cache, mine)
            self.saved.finish(region.name, found)
        return found or "no other codes lower its region's error on held-out data"


def _name(node: Node) -> str:
    return node.outputs[0].name or ""
