"""A two-layer decoder, d 64: RMSNorm, rotary embedding, 4 heads over 2 key/value heads, SwiGLU."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from models.decoder import Shape, build

DYNAMIC = {"input_ids": {0: "batch", 1: "length"}}
OUTPUTS = ("logits",)
SHAPE = Shape(vocabulary=100, width=64, layers=2, heads=4, kv_heads=2, hidden=160)


def load(seed: int = 0) -> nn.Module:
    return build(SHAPE, seed)


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 8, dtype=torch.int64),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    return _feeds(n, np.random.default_rng(0))


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    return _feeds(n, np.random.default_rng(1))


def _feeds(n: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Batches of 2 random sequences of 4 to 15 tokens."""
    lengths = rng.integers(4, 16, n)
    return [{"input_ids": rng.integers(SHAPE.vocabulary, size=(2, k))} for k in lengths]
