"""The reconstruction loop: any parameters, trained so that a region gives its float output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from calib.interrupts import whole_steps
from calib.replay.loss import mean_square
from calib.replay.saved import Saved
from calib.replay.stream import Cache
from ir.errors import PassError

Parameters = Mapping[str, torch.Tensor]
Replace = Callable[[Parameters], Mapping[str, torch.Tensor]]
Loss = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]
Penalty = Callable[[Parameters, int], torch.Tensor]
Mix = Callable[[Cache, int, torch.Generator], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Settings:
    """How long and how fast.

    epochs: walks over the batches; rate: step size of Adam(W); rates: others, by the part of a
    parameter's name before its first "/"; decay: AdamW's weight decay; held: the share of batches
    that only judge; seed: of the order of batches.
    """

    epochs: int = 20
    rate: float = 1e-2
    rates: Mapping[str, float] = field(default_factory=dict)
    decay: float = 0.0
    held: float = 0.25
    seed: int = 0


@dataclass(frozen=True)
class Found:
    """The parameters of the least held-out loss, that loss, that of the start, and the epoch that
    gave it (0: the start itself)."""

    parameters: dict[str, torch.Tensor]
    loss: float
    start: float
    epoch: int


def reconstruct(
    cache: Cache,
    parameters: Parameters,
    replace: Replace,
    settings: Settings | None = None,
    *,
    loss: Loss = mean_square,
    penalty: Penalty | None = None,
    mix: Mix | None = None,
    saved: Saved | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Train `parameters` so that the region with `replace(parameters)` gives its targets.

    penalty: (parameters, step) -> what is added to the loss in training (not in judging); mix:
    inputs of a training step in place of the quantized stream's (QDrop), drawn by the generator.
    The start is judged first and wins ties. One batch alone both trains and judges.

    raises: PassError naming the region when the loss is not finite. KeyboardInterrupt comes between
    steps, with the state saved.
    """
    walk = _Walk(cache, parameters, replace, settings or Settings(), loss, penalty, mix)
    saved = saved or Saved(None, "")
    name = cache.region.name
    state = saved.begin(name)
    if state is None:
        walk.start()
    else:
        walk.restore(state)
    total = walk.settings.epochs * len(walk.training)
    torn = False
    try:
        while walk.step < total:
            with whole_steps():
                torn = True
                walk.advance()
                saved.hold(name, walk.state())
                torn = False
            progress(walk.step, total)
    except KeyboardInterrupt:
        if not torn:
            saved.save()
        raise
    return Found(walk.best, walk.least, walk.first, walk.epoch)


class _Walk:
    """The state of one reconstruction between two steps."""

    def __init__(
        self, cache: Cache, parameters: Parameters, replace: Replace, settings: Settings,
        loss: Loss, penalty: Penalty | None, mix: Mix | None,
    ) -> None:  # fmt: skip
        self.cache, self.replace, self.settings = cache, replace, settings
        self.loss, self.penalty, self.mix = loss, penalty, mix
        self.judging = judges(len(cache), settings.held)
        self.training = [i for i in range(len(cache)) if i not in self.judging] or self.judging
        self.parameters = {
            name: start.detach().clone().requires_grad_(True) for name, start in parameters.items()
        }
        groups = [
            {"params": [tensor], "lr": settings.rates.get(name.split("/")[0], settings.rate)}
            for name, tensor in self.parameters.items()
        ]
        self.adam = torch.optim.AdamW(groups, weight_decay=settings.decay)
        self.step, self.epoch = 0, 0
        self.first = self.least = math.inf
        self.best: dict[str, torch.Tensor] = {}

    def start(self) -> None:
        self.first = self.least = self.judge()
        self.best = self.copies()

    def advance(self) -> None:
        """One batch; after the last one of an epoch, the held-out loss."""
        epoch, place = divmod(self.step, len(self.training))
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(self.training)
        index = int(order[place])
        inputs = None
        if self.mix is not None:
            seed = int(np.random.SeedSequence((self.settings.seed, self.step)).generate_state(1)[0])
            inputs = self.mix(self.cache, index, torch.Generator().manual_seed(seed))
        with torch.enable_grad():
            error = self.error(index, self.replace(self.parameters), inputs)
            if self.penalty is not None:
                error = error + self.penalty(self.parameters, self.step)
        self.check(error.item())
        self.adam.zero_grad()
        if error.requires_grad:
            error.backward()
            self.adam.step()
        self.step += 1
        if place == len(self.training) - 1:
            found = self.judge()
            if found < self.least:
                self.least, self.best, self.epoch = found, self.copies(), epoch + 1

    def error(
        self, index: int, values: Mapping[str, torch.Tensor], inputs: Any = None
    ) -> torch.Tensor:
        output = self.cache.output(index, values, inputs)
        return self.loss(output, self.cache.targets[index], self.cache.rows[index])

    def judge(self) -> float:
        with torch.no_grad():
            values = self.replace(self.parameters)
            found = float(np.mean([self.error(i, values).item() for i in self.judging]))
        self.check(found)
        return found

    def check(self, found: float) -> None:
        if not math.isfinite(found):
            raise PassError(
                f"the loss is {found} at step {self.step}",
                at=self.cache.region.name,
                hint="lower the rate, or look for values that are not finite in its data",
            )

    def copies(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.parameters.items()}

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the walk depends on."""
        return {
            "step": self.step, "epoch": self.epoch, "first": self.first, "least": self.least,
            "best": self.best, "parameters": self.parameters, "adam": self.adam.state_dict(),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                tensor.copy_(state["parameters"][name])
        self.adam.load_state_dict(state["adam"])
        self.step, self.epoch = state["step"], state["epoch"]
        self.first, self.least, self.best = state["first"], state["least"], state["best"]


def judges(count: int, held: float) -> list[int]:
    """Indices of the batches, spread evenly, that judge and do not train (unless there is one)."""
    chosen = min(count - 1, max(1, round(count * held))) if count > 1 else 1
    return sorted({int((i + 1) * count / chosen) - 1 for i in range(chosen)})
