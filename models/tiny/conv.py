"""A residual CNN with a depthwise convolution and BatchNorm: f32[batch, 3, 16, 16] to 10 logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

DYNAMIC = {"image": {0: "batch"}}
OUTPUTS = ("logits",)


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu6(self.stem_norm(self.stem(image)))
        y = torch.relu(self.depthwise_norm(self.depthwise(x)))
        x = torch.relu(x + self.pointwise(y))
        return self.head(x.mean((2, 3)))


def load(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Conv()
    with torch.no_grad():  # statistics as training leaves them: those of the data
        for _ in range(20):
            model(torch.randn(8, 3, 16, 16))
    return model.eval()


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 3, 16, 16),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"image": rng.standard_normal((2, 3, 16, 16), np.float32)} for _ in range(n)]


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"image": rng.standard_normal((2, 3, 16, 16), np.float32)} for _ in range(n)]
