"""Train models/judge.py on Fashion-MNIST: `python -m models.train.judge [--steps N]`.

AdamW, a linear fall of the rate, pictures mirrored at random; about two minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from models.judge import Judge
from models.train.classifier import right
from models.train.pictures import pictures, scaled
from models.weights import trained

SEED, BATCH, RATE = 0, 128, 2e-3


def train(steps: int, images: Tensor, labels: Tensor) -> Judge:
    """images u8[n, 28, 28], labels i64[n]."""
    torch.manual_seed(SEED)
    net = Judge().train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,))
        x = scaled(images[chosen])
        x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
        loss = F.cross_entropy(net(x), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--weights", type=Path, default=trained.FOLDER, help="folder to write to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    net = train(options.steps, *pictures("train"))
    seconds = time.process_time()
    images, labels = pictures("t10k")
    facts = {
        "command": f"python -m models.train.judge --steps {options.steps}",
        "seed": SEED,
        "cpu_seconds": round(seconds),
        "test_accuracy": round(right(net, images, labels) / len(labels), 4),
    }
    print(facts, trained.write("judge", net, facts, options.weights))


if __name__ == "__main__":
    main()
