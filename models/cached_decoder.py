"""The decoder of `models.decoder` with its KV cache as inputs and outputs, and greedy decoding.

One graph is both the prefill (past of length 0) and the step (tokens of length 1): both lengths are
free. Positions go on from the length of the past.

inputs:   input_ids i64[batch, tokens]; per layer i
          past_keys_i, past_values_i f32[batch, kv_heads, past, head]
outputs:  logits f32[batch, tokens, vocabulary]; per layer i
          keys_i (rotated), values_i f32[batch, kv_heads, past + tokens, head]: the next past
notes:    the embedding is also the output layer's weight; there is no padding mask: the rows of a
          batch have equal lengths
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.decoder import Block, RmsNorm, Shape, scaled

Cache = Sequence[torch.Tensor]
Feed = dict[str, np.ndarray]
Run = Callable[[Feed], Feed]


class CachedDecoder(nn.Module):
    """The module docstring says what comes in and goes out; theta: the rotary base."""

    frequency: torch.Tensor

    def __init__(self, shape: Shape, theta: float = 10000.0) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.width)
        exponent = torch.arange(0, shape.head, 2, device="cpu") / shape.head  # even within `meta`
        self.register_buffer("frequency", theta**-exponent, persistent=False)

    def forward(
        self, input_ids: torch.Tensor, past_keys: Cache, past_values: Cache
    ) -> tuple[torch.Tensor, ...]:
        past, tokens = past_keys[0].shape[2], input_ids.shape[1]
        query, key = torch.arange(past, past + tokens), torch.arange(past + tokens)
        mask = torch.where(key > query[:, None], torch.finfo(torch.float32).min, 0.0)
        angle = torch.outer(query.float(), self.frequency).repeat(1, 2)
        cos, sin = angle.cos(), angle.sin()
        x = self.embed(input_ids)
        keys, values = [], []
        blocks = cast(Sequence[Block], self.blocks)
        for block, past_key, past_value in zip(blocks, past_keys, past_values, strict=True):
            q, k, v = block.project(block.norm1(x), cos, sin)
            keys.append(torch.cat((past_key, k), 2))
            values.append(torch.cat((past_value, v), 2))
            x = x + block.mix(q, keys[-1], values[-1], mask)
            x = x + block.feed_forward(block.norm2(x))
        return functional.linear(self.norm(x), self.embed.weight), *keys, *values


def build(shape: Shape, seed: int) -> CachedDecoder:
    """Random weights; an embedding so small that the last id is not said again for its own sake."""
    torch.manual_seed(seed)
    model = scaled(CachedDecoder(shape), shape)
    nn.init.normal_(model.embed.weight, std=0.5 * shape.width**-0.5)
    return model


def dynamic(layers: int) -> dict:
    """The free axes, as `models.capture` wants them."""
    past = ({0: "batch", 2: "past"},) * layers
    return {"input_ids": {0: "batch", 1: "tokens"}, "past_keys": past, "past_values": past}


def outputs(layers: int) -> tuple[str, ...]:
    return ("logits", *(f"{kind}_{i}" for kind in ("keys", "values") for i in range(layers)))


def example(shape: Shape) -> tuple:
    """Two rows, three tokens behind a past of five."""
    caches = [
        tuple(torch.zeros(2, shape.kv_heads, 5, shape.head) for _ in range(shape.layers))
        for _ in range(2)
    ]
    return (torch.zeros(2, 3, dtype=torch.int64), *caches)


def no_past(shape: Shape, batch: int) -> Feed:
    """The past before the first token: length 0."""
    empty = np.zeros((batch, shape.kv_heads, 0, shape.head), np.float32)
    return {f"past_{kind}_{i}": empty for kind in ("keys", "values") for i in range(shape.layers)}


def as_past(found: Feed) -> Feed:
    return {f"past_{name}": array for name, array in found.items() if name != "logits"}


def as_arguments(feed: Feed, layers: int) -> tuple:
    """What `CachedDecoder.forward` takes, from a feed of its captured graph."""
    tensors = {name: torch.from_numpy(array) for name, array in feed.items()}
    caches = (
        tuple(tensors[f"past_{kind}_{i}"] for i in range(layers)) for kind in ("keys", "values")
    )
    return (tensors["input_ids"], *caches)


def greedy(run: Run, prompt: Sequence[int], past: Feed, end: set[int], cap: int) -> list[int]:
    """The likeliest next id again and again, at most `cap`; an id of `end` stops and is left out.

    `run` takes a feed {input name: array} and gives {output name: array}: a captured graph behind
    an executor, an ONNX Runtime session, an artifact.
    """
    tokens: list[int] = []
    ids = np.array([prompt], np.int64)
    while len(tokens) < cap:
        found = run({"input_ids": ids, **past})
        token = int(found["logits"][0, -1].argmax())
        if token in end:
            break
        tokens.append(token)
        ids, past = np.array([[token]], np.int64), as_past(found)
    return tokens
