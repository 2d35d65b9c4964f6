"""A small residual CNN that classifies Fashion-MNIST: BatchNorm, strides, projected shortcuts.

source:   trained here by models/train/fashion_cnn.py: 175 k parameters, fp32
inputs:   x f32[batch, 1, 28, 28], pictures in -1..1
outputs:  logits f32[batch, 10]
notes:    a network of its own, deeper than the one in models/judge.py, which judges pictures
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.data.clothes import SIDE, calibration, evaluation, labelled
from models.residual import Residual
from models.weights import trained

__all__ = ["DYNAMIC", "OUTPUTS", "calibration", "evaluation", "example", "labelled", "load"]
DYNAMIC = {"x": {0: "batch"}}
OUTPUTS = ("logits",)
WIDTHS = (16, 32, 64)
BLOCKS = 2


class FashionCnn(nn.Module):
    """Three stages of two blocks at 28, 14 and 7 pixels, a mean over pixels, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.stem = nn.Sequential(
            nn.Conv2d(1, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        blocks, inputs = [], first
        for stage, width in enumerate(WIDTHS):
            for number in range(BLOCKS):
                blocks.append(Residual(inputs, width, 2 if stage and not number else 1))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def load() -> nn.Module:
    net = FashionCnn()
    net.load_state_dict(trained.read("fashion_cnn"))
    return net.eval()


def example() -> tuple[Tensor, ...]:
    return (torch.zeros(2, 1, SIDE, SIDE),)
