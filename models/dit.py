"""A diffusion transformer that draws 28 x 28 pictures of clothes: many steps, time and class.

source:   trained here on Fashion-MNIST by models/train/dit.py: 1.26 M parameters, fp32
inputs:   x f32[batch, 1, 28, 28], the noisy picture, (1 - t) * picture + t * noise, pictures in
          -1..1; t f32[batch] in 0..1, 1 = noise; label i64[batch] in 0..9, 10 = no class
outputs:  velocity f32[batch, 1, 28, 28], an estimate of noise - picture
notes:    7 x 7 patches of 4 x 4, width 128, 4 blocks of 4 heads; adaLN-zero (DiT,
          arXiv:2212.09748), rectified flow (arXiv:2209.03003), time drawn as in arXiv:2403.03206.
          Small: it stands for the multi-step case, not for the size of models in use
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calib.data.stratified import stratified
from models import samplers
from models.weights import trained

DYNAMIC = {"x": {0: "batch"}, "t": {0: "batch"}, "label": {0: "batch"}}
OUTPUTS = ("velocity",)
STEPS, GUIDANCE = 20, 2.0
SIDE, PATCH, GRID = 28, 4, 7
WIDTH, LAYERS, HEADS = 128, 4, 4
CLASSES = 10
NO_CLASS = CLASSES


class Dit(nn.Module):
    """Diffusion transformer with adaLN-zero; see the module's docstring for shapes and units."""

    position: Tensor
    frequency: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.register_buffer("position", grid_embedding(GRID, WIDTH), persistent=False)
        self.register_buffer("frequency", frequencies(WIDTH), persistent=False)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.label = nn.Embedding(CLASSES + 1, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last_modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.last = nn.Linear(WIDTH, PATCH * PATCH)
        for layer in (self.last_modulation, self.last):
            _zero(layer)
        nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        angles = 1000 * t[:, None] * self.frequency
        time = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], dim=1))
        condition = F.silu(time + self.label(label))
        h = self.patch(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.last_modulation(condition)[:, None].chunk(2, dim=2)
        h = self.last(_norm(h) * (1 + scale) + shift)
        h = h.reshape(-1, GRID, GRID, PATCH, PATCH).transpose(2, 3)
        return h.reshape(-1, 1, SIDE, SIDE)


def load() -> Dit:
    net = Dit()
    net.load_state_dict(trained.read("dit"))
    return net.eval()


def example() -> tuple[Tensor, ...]:
    return torch.zeros(2, 1, SIDE, SIDE), torch.ones(2), torch.tensor([0, NO_CLASS])


def calibration(n: int) -> list[samplers.Feed]:
    """n feeds of one picture each out of the sampler's own flow, even over its steps."""
    return _feeds(n, seed=1)


def evaluation(n: int) -> list[samplers.Feed]:
    """The same from other noise."""
    return _feeds(n, seed=2)


def sample(velocity: samplers.Velocity, n: int, seed: int, guidance: float = GUIDANCE):
    """f32[n, 1, 28, 28] pictures in about -1..1 and their labels i64[n], the classes in turn.

    Equal seeds are equal noise, so that the pictures of two velocities can be compared.
    """
    start, labels = _start(n, seed)
    return samplers.sample(velocity, start, labels, STEPS, guidance, no_class=NO_CLASS), labels


def _start(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return samplers.noise(n, (1, SIDE, SIDE), seed), np.arange(n, dtype=np.int64) % CLASSES


def _feeds(n: int, seed: int) -> list[samplers.Feed]:
    start, labels = _start(max(10, -(-n // 4)), seed)  # 40 feeds each: ten or more to choose from
    velocity = samplers.of_module(load())
    flow = samplers.trajectories(velocity, start, labels, STEPS, GUIDANCE, no_class=NO_CLASS)
    return stratified(flow, n, lambda feed: feed["t"].item(), STEPS, seed)


class Block(nn.Module):
    """Attention and a feed-forward part, each shifted, scaled and gated by the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        _zero(self.modulation)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """h f32[batch, tokens, width], condition f32[batch, width]."""
        parts = self.modulation(condition)[:, None].chunk(6, dim=2)
        shift, scale, gate, shift2, scale2, gate2 = parts
        h = h + gate * self.attend(_norm(h) * (1 + scale) + shift)
        inner = F.gelu(self.up(_norm(h) * (1 + scale2) + shift2), approximate="tanh")
        return h + gate2 * self.down(inner)

    def attend(self, h: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in self.qkv(h).chunk(3, dim=2)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def frequencies(width: int) -> Tensor:
    """f32[width / 2]: 10000^(-2 i / width), those of the sinusoidal embedding of t * 1000."""
    return torch.exp(-math.log(10000.0) * torch.arange(width // 2) / (width // 2))


def grid_embedding(side: int, width: int) -> Tensor:
    """f32[side * side, width]: a quarter each sin and cos of the row, sin and cos of the column."""
    angles = torch.outer(torch.arange(side).float(), frequencies(width // 2))
    line = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    rows = line[:, None].expand(side, side, -1)
    return torch.cat([rows, rows.transpose(0, 1)], dim=2).reshape(side * side, width)


def _norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, (WIDTH,), eps=1e-6)


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
