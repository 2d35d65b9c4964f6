"""ResNet-18 of seeded random weights, 11.7 M; BatchNorm holds the statistics of photographs.

source:   the architecture of arXiv:1512.03385, written here in plain torch
inputs:   image f32[batch, 3, 224, 224], normalised
outputs:  logits f32[batch, 1000]
notes:    random weights: figures speak of cost and of arithmetic error, not of task quality
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from models.data.photographs import CALIBRATION, EVALUATION, crops
from models.residual import Residual

DYNAMIC = {"image": {0: "batch"}}
OUTPUTS = ("logits",)


class ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        widths = [64, 64, 128, 256, 512]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(Residual(a, b, 1 if a == b else 2), Residual(b, b, 1))
                for a, b in pairwise(widths)
            )
        )
        self.head = nn.Linear(512, 1000)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(image)).mean((2, 3)))


def load() -> nn.Module:
    torch.manual_seed(18)
    return settle(ResNet18(), calibration(8))


def settle(model: nn.Module, feeds: list[dict[str, np.ndarray]]) -> nn.Module:
    """Gives every BatchNorm the statistics of the feeds and a varied gain and bias; eval mode."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = None  # a plain mean over the batches
    with torch.no_grad():
        model.train()(torch.cat([torch.from_numpy(feed["image"]) for feed in feeds]))
    return model.eval()


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 3, 224, 224),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n feeds of one photograph each."""
    return _feeds(list(CALIBRATION), n, seed=0)


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    return _feeds(list(EVALUATION), n, seed=1)


def _feeds(names: list[str], n: int, seed: int) -> list[dict[str, np.ndarray]]:
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    pixels = (np.asarray(image, np.float32) / 255 for image in crops(names, n, (224, 224), seed))
    return [{"image": ((p - mean) / std).transpose(2, 0, 1)[None].copy()} for p in pixels]
