"""A 24-layer decoder, d 512, of seeded random weights: the size test (109 M parameters).

inputs:   input_ids i64[batch, length]
outputs:  logits f32[batch, length, 8000]
notes:    real decoders of this size come as one graph of thousands of nodes; random weights have no
          outliers, so its figures speak of cost, not of quality
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from models.decoder import Shape, build

DYNAMIC = {"input_ids": {0: "batch", 1: "length"}}
OUTPUTS = ("logits",)
SHAPE = Shape(vocabulary=8000, width=512, layers=24, heads=8, kv_heads=8, hidden=2048)
LENGTH = 64


def load() -> nn.Module:
    return build(SHAPE, seed=24)


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, LENGTH, dtype=torch.int64),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n sequences of 64 random tokens."""
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(SHAPE.vocabulary, size=(1, LENGTH))} for _ in range(n)]


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"input_ids": rng.integers(SHAPE.vocabulary, size=(1, LENGTH))} for _ in range(n)]
