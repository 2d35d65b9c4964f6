"""Small real architectures, written with torch.nn alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet18(nn.Module):
    """3x3 stride-1 stem and no max-pool, as used at 64x64; `width` 64 is the real one."""

    def __init__(self, width=64, classes=200):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        layers, before = [], width
        for stage in range(4):
            for index in range(2):
                after = width << stage
                layers.append(BasicBlock(before, after, 2 if stage and not index else 1))
                before = after
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, x):
        h = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.head(h.mean((2, 3)))


class EncoderLayer(nn.Module):
    """Pre-norm, as in a ViT; `eager` writes the attention out."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, mask=None):
        b, s, c = x.shape
        h = self.norm1(x)
        q, k, v = (
            m(h).view(b, s, self.heads, c // self.heads).transpose(1, 2)
            for m in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(2, 3) / (c // self.heads) ** 0.5
        if mask is not None:
            scores = scores + mask
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, s, c)
        x = x + self.o(h)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    def __init__(self, width=16, layers=3):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 16, width))
        self.layers = nn.Sequential(*[EncoderLayer(width) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        h = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(h)).mean(1))


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class DecoderLayer(nn.Module):
    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x, mask, cos, sin):
        b, s, c = x.shape
        h = self.norm1(x)
        q, k, v = (
            m(h).view(b, s, self.heads, c // self.heads).transpose(1, 2)
            for m in (self.q, self.k, self.v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        p = (q @ k.transpose(2, 3) * (c // self.heads) ** -0.5 + mask).softmax(-1)
        x = x + self.o((p @ v).transpose(1, 2).reshape(b, s, c))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """Rotary tables and causal mask are computed in the graph from the position ids."""

    def __init__(self, width=16, layers=3, heads=2):
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.layers = nn.ModuleList([DecoderLayer(width, heads) for _ in range(layers)])
        self.norm, self.head = RmsNorm(width), nn.Linear(width, 50, bias=False)
        d = width // heads
        self.register_buffer("frequency", 10.0 ** -(torch.arange(0, d, 2) / d))

    def forward(self, ids, positions):
        x = self.embed(ids)
        angles = positions[:, :, None].float() * self.frequency
        table = torch.cat((angles, angles), -1)[:, None]
        cos, sin = table.cos(), table.sin()
        later = positions[:, None, None, :] > positions[:, None, :, None]
        mask = torch.where(later, torch.finfo(torch.float32).min, 0.0)
        for layer in self.layers:
            x = layer(x, mask, cos, sin)
        return self.head(self.norm(x))


class TimedBlock(nn.Module):
    """A U-Net's residual block that adds a projection of the time embedding."""

    def __init__(self, before, width, time):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, before), nn.GroupNorm(2, width)
        self.conv1 = nn.Conv2d(before, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        self.time = nn.Linear(time, width)
        self.skip = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x, t):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(t))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    """Two levels down and up, skip connections by concatenation, time embedding."""

    def __init__(self, width=8):
        super().__init__()
        self.time = nn.Linear(4, 16)
        self.stem = nn.Conv2d(3, width, 3, 1, 1)
        self.down = nn.ModuleList([TimedBlock(width, width, 16), TimedBlock(width, width, 16)])
        self.shrink = nn.ModuleList([nn.Conv2d(width, width, 3, 2, 1) for _ in range(2)])
        self.middle = TimedBlock(width, width, 16)
        self.up = nn.ModuleList([TimedBlock(2 * width, width, 16) for _ in range(2)])
        self.out = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x, t):
        t = self.time(t)
        h, kept = self.stem(x), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, t)
            kept.append(h)
            h = shrink(h)
        h = self.middle(h, t)
        for block in self.up:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest")
            h = block(torch.cat((h, kept.pop()), 1), t)
        return self.out(h)


class Adaptive(nn.Module):
    """A diffusion transformer's block: one wide layer each for shift, scale, gate and q, k, v."""

    def __init__(self, width=16, heads=2):
        super().__init__()
        self.width, self.heads = width, heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, condition):
        parts = self.modulation(F.silu(condition))[:, None].split(self.width, 2)
        shift, scale, gate, shift2, scale2, gate2 = parts
        h = F.layer_norm(x, (self.width,)) * (1 + scale) + shift
        x = x + gate * self.attend(h)
        h = F.layer_norm(x, (self.width,)) * (1 + scale2) + shift2
        return x + gate2 * self.down(F.relu(self.up(h)))

    def attend(self, h):
        b, s, c = h.shape
        q, k, v = (
            part.reshape(b, s, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(h).split(c, 2)
        )
        p = (q @ k.transpose(2, 3) * (c // self.heads) ** -0.5).softmax(-1)
        return self.out((p @ v).transpose(1, 2).reshape(b, s, c))
