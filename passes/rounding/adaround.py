"""Learn for every weight whether it is rounded down or up, from its region's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from calib.replay import Cache, Saved, Settings, mean_square, reconstruct, work_key
from calib.replay.loop import judges
from ir.errors import PassError
from ir.formats import integer
from ir.graph import Graph, Node
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, register
from passes.probe import first_samples, in_batches

from .regionwise import Site, Walk, areas, sites
from .rtn import encodes, round_nearest, write_codes

Tensors = Mapping[str, torch.Tensor]
WARM = 0.2
"""Share of the steps without the regulariser."""
BETA = (20.0, 2.0)
"""The regulariser's exponent: where it starts, where it ends."""


def rectified(v: torch.Tensor) -> torch.Tensor:
    """h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1): AdaRound, eq. 23."""
    return (1.2 * torch.sigmoid(v) - 0.1).clamp(0, 1)


def logits(site: Site) -> torch.Tensor:
    """V with h(V) = the fractional part of w / s, so that V >= 0 exactly where nearest is up."""
    steps = (site.weight / site.scale).double()
    down = torch.floor(steps)
    v = -torch.log(1.2 / (steps - down + 0.1) - 1)
    tiny = torch.finfo(torch.float32).tiny
    up = torch.round(steps) > down
    return torch.where(up, v.clamp(min=0), v.clamp(max=-tiny)).float()


def soft(site: Site, v: torch.Tensor) -> torch.Tensor:
    """The weight between its two neighbours on the grid, as h(V) says."""
    return decoded(site, rectified(v))


def decoded(site: Site, share: torch.Tensor) -> torch.Tensor:
    """The weight with codes floor(w / s) + share + z, held at the limits; share in [0, 1]."""
    codes = torch.floor(site.weight / site.scale) + share + site.zero
    return (codes.clamp(*site.limits) - site.zero) * site.scale


def codes_of(site: Site, up: torch.Tensor) -> np.ndarray:
    """The final codes, in the element's type."""
    codes = torch.floor(site.weight / site.scale) + up + site.zero
    return codes.clamp(*site.limits).numpy().astype(integer.dtype(site.qtype.element))


def exponent(step: int, total: int) -> float | None:
    """beta of a step, falling linearly after the warm-up; None while the regulariser sleeps."""
    past = step / max(1, total)
    if past < WARM:
        return None
    first, last = BETA
    return first + (last - first) * (past - WARM) / (1 - WARM)


def undecided(parameters: Tensors, beta: float) -> torch.Tensor:
    """Mean over all weights of 1 - |2 h - 1|^beta: 0 exactly when every h is 0 or 1."""
    parts = [1 - (2 * rectified(v) - 1).abs().pow(beta) for v in parameters.values()]
    return torch.stack([part.sum() for part in parts]).sum() / sum(p.numel() for p in parts)


@register
@dataclass(frozen=True)
class Adaround(Pass):
    """Round every weight down or up, whichever brings its region's output nearer to float's.

    rewrite:  wq = Encode(w, s);  y = x @ Decode(wq, s)
              -->
              wq = const;         y = x @ Decode(wq, s)
    shapes:   w, wq [K, N] (or a Conv's layout); s as `QType.scale_shape`
    options:  blocks: fit residual blocks as a whole (BRECQ), not layer by layer with the activation
              behind; drop: share of a region's input elements taken from the float stream in
              training (QDrop); weight: of the regulariser, beside the error as a multiple of that
              of nearest codes; epochs: walks over the samples; rate: Adam's step size; samples: of
              the calibration data; batch: samples in a step
    error:    a region's held-out squared error never above that of nearest codes
    raises:   PassError without data, or naming the region when its loss is not finite. Skips, and
              rounds to nearest, weights that a kernel's rule holds, that lie in no region, and
              those of regions where nothing was gained
    source:   AdaRound, arXiv:2004.10568; BRECQ, arXiv:2102.05426 (no Fisher weights); QDrop,
              arXiv:2203.05740 (inputs of regions). Error and regulariser are scale-free here
    """

    name: ClassVar[str] = "adaround"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})
    optional: ClassVar[bool] = True

    blocks: bool = False
    drop: float = 0.0
    weight: float = 1.0
    epochs: int = 40
    rate: float = 0.02
    samples: int = 64
    batch: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise ValueError("drop must lie in [0, 1)")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        def refuse(encode: Node, reason: str) -> None:
            ctx.skip(encode.inputs[0], f"{reason}: rounded to nearest")

        places = sites(graph, refuse)
        feeds = in_batches(first_samples(ctx.data or (), self.samples, graph), self.batch, graph)
        learned: list[tuple[Site, torch.Tensor]] = []
        if places:
            if not feeds:
                raise PassError("there is no data to learn from", hint="pass data=... (--calib)")
            saved = Saved(ctx.checkpoint, work_key(graph, feeds, str(self), ctx.seed))
            walk = Walk(graph, ctx, feeds, saved)

            def learn(cache: Cache, mine: list[Site]) -> Tensors:
                return self._learn(cache, mine, saved, ctx.seed)

            parts = areas(ctx.teacher(), self.blocks)
            for site, found in walk.run(parts, places, "learning roundings", learn, decoded):
                if isinstance(found, str):
                    refuse(site.encode, found)
                else:
                    learned.append((site, found))
            saved.remove()
        for site, up in learned:
            ctx.did(site.encode.inputs[0])
            write_codes(site.encode, codes_of(site, up), None, ctx)
        for encode in encodes(graph):
            round_nearest(encode, ctx)

    def _learn(self, cache: Cache, mine: list[Site], saved: Saved, seed: int) -> Tensors:
        """Which weights go up, by site; nothing where nearest codes are as good."""
        settings = Settings(self.epochs, self.rate, seed=seed)
        start = {site.key: logits(site) for site in mine}
        nearest = held_out(cache, hardened(mine, start), settings.held)
        if not nearest:
            return {}
        total = self.epochs * max(1, len(cache) - len(judges(len(cache), settings.held)))

        def replace(parameters: Tensors) -> dict[str, torch.Tensor]:
            if not torch.is_grad_enabled():  # judged as it will be deployed
                return hardened(mine, parameters)
            return {
                name: tensor
                for site in mine
                for tensor in [soft(site, parameters[site.key])]
                for name in site.decoded
            }

        def penalty(parameters: Tensors, step: int) -> torch.Tensor:
            beta = exponent(step, total)
            return torch.zeros(()) if beta is None else self.weight * undecided(parameters, beta)

        found = reconstruct(
            cache, start, replace, settings, saved=saved, penalty=penalty,
            loss=lambda y, target, rows: mean_square(y, target, rows) / nearest,
            mix=self._mixed if self.drop else None,
        )  # fmt: skip
        if not found.epoch:
            return {}
        return {name: v >= 0 for name, v in found.parameters.items()}

    def _mixed(
        self, cache: Cache, index: int, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """A region's inputs with single elements of the float stream among the quantized ones."""
        mixed = {}
        for name, quantized in cache.inputs[index].items():
            dropped = torch.rand(quantized.shape, generator=generator) < self.drop
            mixed[name] = torch.where(dropped, cache.floats[index][name], quantized)
        return mixed


def hardened(mine: list[Site], parameters: Tensors) -> dict[str, torch.Tensor]:
    """What the Decodes give with every weight on the side that its V says."""
    return {
        name: tensor
        for site in mine
        for tensor in [decoded(site, parameters[site.key] >= 0)]
        for name in site.decoded
    }


def held_out(cache: Cache, values: Tensors, held: float) -> float:
    """The mean squared error of a region over the batches that judge."""
    with torch.no_grad():
        errors = [
            mean_square(cache.output(i, values), cache.targets[i], cache.rows[i]).item()
            for i in judges(len(cache), held)
        ]
    return float(np.mean(errors))
