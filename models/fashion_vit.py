"""A small vision transformer that classifies Fashion-MNIST.

source:   trained here by models/train/fashion_vit.py: 0.8 M parameters, fp32
inputs:   x f32[batch, 1, 28, 28], pictures in -1..1
outputs:  logits f32[batch, 10]
notes:    7 x 7 patches of 4 x 4 and a class token, width 128, 4 blocks of 4 heads, norms before
          (ViT, arXiv:2010.11929)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.clothes import SIDE, calibration, evaluation, labelled
from models.weights import trained

__all__ = ["DYNAMIC", "OUTPUTS", "calibration", "evaluation", "example", "labelled", "load"]
DYNAMIC = {"x": {0: "batch"}}
OUTPUTS = ("logits",)
PATCH, WIDTH, LAYERS, HEADS = 4, 128, 4, 4


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); x f32[batch, tokens, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=2)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FashionVit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        tokens = (SIDE // PATCH) ** 2 + 1
        self.patch = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        token = self.token.expand(x.shape[0], -1, -1)
        h = self.blocks(torch.cat([token, patches], dim=1) + self.position)
        return self.head(self.norm(h[:, 0]))


def load() -> nn.Module:
    net = FashionVit()
    net.load_state_dict(trained.read("fashion_vit"))
    return net.eval()


def example() -> tuple[Tensor, ...]:
    return (torch.zeros(2, 1, SIDE, SIDE),)
