"""Three linear layers with GELU and ReLU between them: f32[batch, 16] to f32[batch, 8]."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

DYNAMIC = {"x": {0: "batch"}}
OUTPUTS = ("y",)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(16, 64)
        self.mid = nn.Linear(64, 32)
        self.down = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.up(x))
        return self.down(torch.relu(self.mid(x)))


def load(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Mlp().eval()


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 16),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((4, 16), np.float32)} for _ in range(n)]


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((4, 16), np.float32)} for _ in range(n)]
