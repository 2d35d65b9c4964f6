"""The training loop of the Fashion-MNIST classifiers, and the command around it.

AdamW under a rate that rises and then falls as a cosine; pictures are mirrored, and moved by some
pixels, at random. Every step draws from a generator seeded by (seed, step): a run that was
stopped goes on from its last checkpoint (every 100 steps) as if it had not been.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calib.metrics.classification import share
from models.train import checkpoint
from models.train.pictures import pictures, scaled
from models.weights import trained

SAVE = 100
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Settings:
    """steps of `batch` pictures; rate: AdamW's highest, reached after `rise` steps; decay: of the
    weights; smooth: share of every label given to all classes; move: pixels at most."""

    seed: int = 0
    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    rise: int = 100
    decay: float = 0.05
    smooth: float = 0.05
    move: int = 2

    def rate_at(self, step: int) -> float:
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.rate * fall * min(1.0, (step + 1) / self.rise)


USUAL = Settings()


@dataclass
class State:
    """What a stopped run needs in order to go on."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    cpu_seconds: float = 0.0

    def save(self, path: Path) -> None:
        whole = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "step": self.step, "cpu_seconds": self.cpu_seconds}  # fmt: skip
        checkpoint.write(path, whole)

    def restore(self, path: Path) -> None:
        whole = checkpoint.read(path)
        self.net.load_state_dict(whole["net"])
        self.optimizer.load_state_dict(whole["optimizer"])
        self.step, self.cpu_seconds = whole["step"], whole["cpu_seconds"]


def start(make: Callable[[], nn.Module], settings: Settings) -> State:
    torch.manual_seed(settings.seed)
    net = make().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=settings.decay)
    return State(net, optimizer)


def varied(images: Tensor, draw: torch.Generator, move: int) -> Tensor:
    """u8[n, 28, 28] -> f32[n, 1, 28, 28], mirrored, and moved by up to `move` pixels, at random."""
    x = scaled(images)
    n, side = len(x), x.shape[-1]
    x = torch.where(torch.rand(n, 1, 1, 1, generator=draw) < 0.5, x.flip(3), x)
    x = F.pad(x, [move] * 4, value=-1.0)
    shift = torch.randint(2 * move + 1, (n, 2), generator=draw)
    rows = (shift[:, :1] + torch.arange(side))[:, :, None]
    columns = (shift[:, 1:] + torch.arange(side))[:, None, :]
    return x[torch.arange(n)[:, None, None], 0, rows, columns][:, None]


def step(state: State, images: Tensor, labels: Tensor, settings: Settings) -> float:
    """One update; returns the loss."""
    draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)
    chosen = torch.randint(len(images), (settings.batch,), generator=draw)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.rate_at(state.step)
    logits = state.net(varied(images[chosen], draw, settings.move))
    loss = F.cross_entropy(logits, labels[chosen], label_smoothing=settings.smooth)
    state.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    return loss.item()


def train(make: Callable[[], nn.Module], settings: Settings, path: Path) -> State:
    """Run on from the checkpoint at `path`, if it is there, to `settings.steps`."""
    state = start(make, settings)
    if path.is_file():
        state.restore(path)
    images, labels = pictures("train")
    began = time.process_time() - state.cpu_seconds
    while state.step < settings.steps:
        loss = step(state, images, labels, settings)
        if state.step % SAVE == 0 or state.step == settings.steps:
            state.cpu_seconds = time.process_time() - began
            state.save(path)
            print(f"{state.step:5d} loss {loss:.4f} {state.cpu_seconds:6.0f} CPU s", flush=True)
    return state


@torch.no_grad()
def right(net: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many of the pictures have their label as the largest logit."""
    net.eval()
    parts = zip(images.split(250), labels.split(250), strict=True)
    return sum(int((net(scaled(x)).argmax(1) == y).sum()) for x, y in parts)


def main(
    name: str,
    make: Callable[[], nn.Module],
    settings: Settings = USUAL,
    arguments: list[str] | None = None,
) -> None:
    """The command `python -m models.train.NAME`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m models.train.{name}", description=f"Train models/{name}.py."
    )
    parser.add_argument("--steps", type=int, default=settings.steps)
    parser.add_argument("--checkpoint", type=Path, default=Path(f".bench/train/{name}.pt"))
    parser.add_argument("--weights", type=Path, default=trained.FOLDER, help="folder to write to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = replace(settings, steps=options.steps)
    try:
        state = train(make, settings, options.checkpoint)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from the checkpoint") from None
    images, labels = pictures("t10k")
    top1 = share(right(state.net, images, labels), len(labels))
    facts = {
        "command": f"python -m models.train.{name} --steps {options.steps}",
        **asdict(settings),
        "cpu_seconds": round(state.cpu_seconds),
        "test_accuracy": round(top1.rate, 4),
        "interval_95": [round(top1.low, 4), round(top1.high, 4)],
        "test_samples": top1.samples,
    }
    print(facts, trained.write(name, state.net, facts, options.weights))
