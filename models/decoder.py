"""A Llama-like decoder: RMSNorm, rotary embedding, grouped-query attention, SwiGLU; random weights.

The norm is spelt out and the causal mask is computed from the length, as Hugging Face's export
has it. `big24` and `tiny.llama` are two sizes of it; `cached_decoder` adds the KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True)
class Shape:
    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int

    @property
    def head(self) -> int:
        return self.width // self.heads


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding in the half-split form; x f32[batch, heads, length, head]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head
        self.norm1, self.norm2 = RmsNorm(shape.width), RmsNorm(shape.width)
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, kv_width, bias=False)
        self.v = nn.Linear(shape.width, kv_width, bias=False)
        self.o = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def project(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys (both rotated) and values f32[batch, heads or kv_heads, length, head]."""
        batch, length, _ = x.shape
        split = (batch, length, -1, self.shape.head)
        q, k, v = (linear(x).view(split).transpose(1, 2) for linear in (self.q, self.k, self.v))
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def mix(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Attention of the queries over keys and values; f32[batch, length, width]."""
        batch, _, length, _ = q.shape
        groups = self.shape.heads // self.shape.kv_heads
        if groups > 1:
            k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
        scores = q @ k.transpose(2, 3) * self.shape.head**-0.5 + mask
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        x = x + self.mix(*self.project(self.norm1(x), cos, sin), mask)
        return x + self.feed_forward(self.norm2(x))


class Decoder(nn.Module):
    """input_ids i64[batch, length] to logits f32[batch, length, vocabulary]."""

    frequency: torch.Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        frequency = 10000.0 ** (-torch.arange(0, shape.head, 2) / shape.head)
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        length = input_ids.shape[1]
        position = torch.arange(length, dtype=torch.float32)
        angle = torch.outer(position, self.frequency).repeat(1, 2)
        later = torch.ones(length, length).triu(1)
        mask = later * torch.finfo(torch.float32).min
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, angle.cos(), angle.sin(), mask)
        return self.head(self.norm(x))


def build(shape: Shape, seed: int) -> Decoder:
    """Random weights that keep the activations of every layer at unit size."""
    torch.manual_seed(seed)
    return scaled(Decoder(shape), shape)


def scaled(model: T, shape: Shape) -> T:
    """Draws every linear weight of `model` again, of the size that keeps activations at one."""
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            gain = (2 * shape.layers) ** -0.5 if name.endswith((".o.weight", ".down.weight")) else 1
            nn.init.normal_(weight, std=gain * weight.shape[1] ** -0.5)
    return model.eval()
