"""A pre-norm transformer block: LayerNorm spelt out, attention with a `finfo.min` mask, GELU."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

DYNAMIC = {"tokens": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
OUTPUTS = ("y",)
WIDTH, HEADS = 32, 4


class LayerNorm(nn.Module):
    """As exporters of old write it: ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(WIDTH))
        self.bias = nn.Parameter(0.1 * torch.randn(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-5) * self.weight + self.bias


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(), LayerNorm()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = tokens.shape
        q, k, v = self.qkv(self.norm1(tokens)).chunk(3, -1)
        q, k, v = (t.reshape(batch, length, HEADS, -1).transpose(1, 2) for t in (q, k, v))
        hidden = (1 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
        weights = (q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5 + hidden).softmax(-1)
        tokens = tokens + self.out((weights @ v).transpose(1, 2).reshape(batch, length, WIDTH))
        return tokens + self.down(nn.functional.gelu(self.up(self.norm2(tokens))))


def load(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Block().eval()


def example() -> tuple[torch.Tensor, ...]:
    return torch.zeros(2, 6, WIDTH), torch.ones(2, 6)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    return _feeds(n, np.random.default_rng(0))


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    return _feeds(n, np.random.default_rng(1))


def _feeds(n: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Batches of 2; the second sequence of each ends in padding."""
    feeds = []
    for length in rng.integers(4, 12, n):
        mask = np.ones((2, length), np.float32)
        mask[1, -2:] = 0
        feeds.append({"tokens": rng.standard_normal((2, length, WIDTH), np.float32), "mask": mask})
    return feeds
