"""MobileNetV2 of seeded random weights, 3.5 M parameters: inverted residuals, depthwise, ReLU6.

source:   the architecture of arXiv:1801.04381, written here in plain torch
inputs:   image f32[batch, 3, 224, 224], normalised
outputs:  logits f32[batch, 1000]
notes:    random weights: figures speak of cost and of arithmetic error, not of task quality
"""

from __future__ import annotations

import torch
from torch import nn

from models.resnet18 import DYNAMIC, OUTPUTS, calibration, evaluation, example, settle

__all__ = ["DYNAMIC", "OUTPUTS", "calibration", "evaluation", "example", "load"]

# expansion, channels, blocks, stride: table 2 of the paper
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
          (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [convolution(inputs, wide, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [convolution(wide, wide, 3, stride, wide), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, convolution(wide, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, 32, 3, 2), nn.ReLU6()]
        inputs = 32
        for expansion, outputs, blocks, stride in STAGES:
            for i in range(blocks):
                layers.append(Inverted(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.layers = nn.Sequential(*layers, convolution(320, 1280, 1), nn.ReLU6())
        self.head = nn.Linear(1280, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(image).mean((2, 3)))


def load() -> nn.Module:
    torch.manual_seed(2)
    return settle(MobileNetV2(), calibration(8))
