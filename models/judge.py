"""A small residual network that knows the classes of Fashion-MNIST: the fixed judge of pictures.

source:   trained here by models/train/judge.py: 78 k parameters, fp32
inputs:   x f32[batch, 1, 28, 28], pictures in -1..1
outputs:  logits f32[batch, 10]; `features` are the 64 means that the last layer reads
notes:    Frechet distances in these features compare with each other only, not with those of
          another judge. Change the weights and every figure made with them is void
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from models.weights import trained

FEATURES = 64


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.skip(x))


class Judge(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            nn.Conv2d(1, 16, 3, 1, 1), Residual(16, 16, 2), Residual(16, 32, 2),
            Residual(32, FEATURES, 1),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, 10)

    def features(self, x: Tensor) -> Tensor:
        """f32[batch, 64]."""
        return self.stages(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@cache
def load() -> Judge:
    net = Judge()
    net.load_state_dict(trained.read("judge"))
    return net.eval()


def judge(pictures: np.ndarray, batch: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """f64[n, 64] features and i64[n] classes of f32[n, 1, 28, 28] pictures in -1..1."""
    net, features, classes = load(), [], []
    with torch.no_grad():
        for part in torch.from_numpy(pictures).split(batch):
            features.append(net.features(part))
            classes.append(net.head(features[-1]).argmax(1))
    return torch.cat(features).double().numpy(), torch.cat(classes).numpy()
