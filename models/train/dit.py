"""Train models/dit.py on Fashion-MNIST: `python -m models.train.dit [--steps N]`.

Rectified flow: at t the picture is x_t = (1 - t) * x + t * noise, and the model learns the constant
velocity noise - x of that line. One label in ten is dropped, for guidance. The weights written are
the moving average. Every step draws from a generator seeded by (seed, step), and the rate is
constant after its rise: a run that was stopped goes on from its last checkpoint (every 50 steps) as
if it had not been, and a shorter run is the beginning of a longer one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from models.dit import NO_CLASS, Dit
from models.train import checkpoint
from models.train.pictures import pictures, scaled
from models.weights import trained


@dataclass(frozen=True)
class Settings:
    """steps of `batch` pictures; rate: AdamW's, reached after `rise` steps; decay: of the average;
    drop: share of labels replaced by 'no class'."""

    seed: int = 0
    steps: int = 3000
    batch: int = 64
    rate: float = 1e-3
    rise: int = 100
    decay: float = 0.998
    drop: float = 0.1


@dataclass
class State:
    """What a stopped run needs in order to go on. losses: the mean of every 50 steps."""

    net: Dit
    average: Dit
    optimizer: torch.optim.Optimizer
    step: int = 0
    cpu_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def save(self, path: Path) -> None:
        whole = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "losses": self.losses,
        }
        checkpoint.write(path, whole)

    def restore(self, path: Path) -> None:
        whole = checkpoint.read(path)
        for name in ("net", "average", "optimizer"):
            getattr(self, name).load_state_dict(whole[name])
        self.step, self.cpu_seconds = whole["step"], whole["cpu_seconds"]
        self.losses = whole["losses"]


def start(settings: Settings) -> State:
    torch.manual_seed(settings.seed)
    net, average = Dit(), Dit()
    average.load_state_dict(net.state_dict())
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    return State(net, average.eval(), optimizer)


def loss_of(net: Dit, pictures: Tensor, labels: Tensor, draw: torch.Generator, drop: float):
    """Mean squared error of the velocity at logit-normal times; pictures f32[n, 1, 28, 28]."""
    n = len(pictures)
    t = torch.sigmoid(torch.randn(n, generator=draw))
    noise = torch.randn(pictures.shape, generator=draw)
    labels = torch.where(torch.rand(n, generator=draw) < drop, NO_CLASS, labels)
    part = t[:, None, None, None]
    velocity = net((1 - part) * pictures + part * noise, t, labels)
    return (velocity - (noise - pictures)).square().mean()


def step(state: State, pictures: Tensor, labels: Tensor, settings: Settings) -> float:
    draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)
    chosen = torch.randint(len(pictures), (settings.batch,), generator=draw)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.rate * min(1.0, (state.step + 1) / settings.rise)
    loss = loss_of(state.net, scaled(pictures[chosen]), labels[chosen], draw, settings.drop)
    state.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.net.parameters(), 1.0)
    state.optimizer.step()
    state.step += 1
    decay = min(settings.decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for kept, new in zip(state.average.parameters(), state.net.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
    return loss.item()


def train(settings: Settings, path: Path) -> State:
    """Run on from the checkpoint at `path`, if it is there, to `settings.steps`;
    saved every 50 steps."""
    state = start(settings)
    if path.is_file():
        state.restore(path)
    images, labels = pictures("train")
    began, recent = time.process_time() - state.cpu_seconds, []
    while state.step < settings.steps:
        recent.append(step(state, images, labels, settings))
        if state.step % 50 == 0:
            state.losses.append(sum(recent) / len(recent))
            state.cpu_seconds, recent = time.process_time() - began, []
            state.save(path)
            seconds = f"{state.cpu_seconds:6.0f} CPU s"
            print(f"{state.step:5d} loss {state.losses[-1]:.4f} {seconds}", flush=True)
    return state


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--checkpoint", type=Path, default=Path(".bench/train/dit.pt"))
    parser.add_argument("--weights", type=Path, default=trained.FOLDER, help="folder to write to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = Settings(steps=options.steps)
    try:
        state = train(settings, options.checkpoint)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on from the checkpoint") from None
    facts = {
        "command": f"python -m models.train.dit --steps {options.steps}",
        **asdict(settings),
        "cpu_seconds": round(state.cpu_seconds),
        "loss_of_last_500_steps": round(sum(state.losses[-10:]) / len(state.losses[-10:]), 4),
    }
    print(facts, trained.write("dit", state.average, facts, options.weights))


if __name__ == "__main__":
    main()
