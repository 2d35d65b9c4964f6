"""The decoder of Whisper tiny.en with its KV cache as inputs and outputs: 4 layers, d 384.

One graph is both the prefill (past of length 0) and the step (tokens of length 1): both lengths are
free. The keys and values of the cross-attention come in ready, from `whisper_cross`: they are the
same at every step.

source:   as in `whisper_encoder`; checked against transformers' `WhisperDecoder`
inputs:   input_ids i64[batch, tokens]; per layer i
          past_keys_i, past_values_i   f32[batch, 6, past, 64], past + tokens <= 448
          cross_keys_i, cross_values_i f32[batch, 6, 1500, 64]
outputs:  logits f32[batch, tokens, 51864]; per layer i
          keys_i, values_i f32[batch, 6, past + tokens, 64]: the past of the next step
notes:    there is no padding mask: the rows of a batch have equal lengths (`whisper.transcribe`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models import whisper_encoder

LAYERS, HEADS, HEAD = 4, 6, 64
PAST = {0: "batch", 2: "past"}
DYNAMIC = {
    "input_ids": {0: "batch", 1: "tokens"},
    "past_keys": (PAST,) * LAYERS,
    "past_values": (PAST,) * LAYERS,
    "cross_keys": ({0: "batch"},) * LAYERS,
    "cross_values": ({0: "batch"},) * LAYERS,
}
OUTPUTS = (
    "logits",
    *(f"{kind}_{layer}" for kind in ("keys", "values") for layer in range(LAYERS)),
)
Cache = Sequence[torch.Tensor]


class Attention(nn.Module):
    """Queries of x over keys and values given as heads; the keys' projection has no bias."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        if not cross:
            self.k_proj = nn.Linear(width, width, bias=False)
            self.v_proj = nn.Linear(width, width)

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        scores = split(self.q_proj(x) * self.scale, self.heads) @ keys.transpose(2, 3)
        scores = scores if mask is None else scores + mask
        return self.out_proj(join(scores.softmax(-1) @ values))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads, cross=False)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Attention(width, heads, cross=True)
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, past: Cache, cross: Cache
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        attention = self.self_attn
        y = self.self_attn_layer_norm(x)
        keys = torch.cat((past[0], split(attention.k_proj(y), attention.heads)), 2)
        values = torch.cat((past[1], split(attention.v_proj(y), attention.heads)), 2)
        x = x + attention(y, keys, values, mask)
        x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), *cross, None)
        x = x + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(x))))
        return x, keys, values


class Decoder(nn.Module):
    """The module docstring says what comes in and goes out; `config` is a WhisperConfig."""

    def __init__(self, config) -> None:
        super().__init__()
        width = config.d_model
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_positions = nn.Embedding(config.max_target_positions, width)
        shape = (width, config.decoder_attention_heads, config.decoder_ffn_dim)
        self.layers = nn.ModuleList(Layer(*shape) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        input_ids: torch.Tensor,
        past_keys: Cache,
        past_values: Cache,
        cross_keys: Cache,
        cross_values: Cache,
    ) -> tuple[torch.Tensor, ...]:
        past, tokens = past_keys[0].shape[2], input_ids.shape[1]
        query, key = torch.arange(past, past + tokens), torch.arange(past + tokens)
        mask = torch.where(key > query[:, None], torch.finfo(torch.float32).min, 0.0)
        x = self.embed_tokens(input_ids) + self.embed_positions(query)
        caches = zip(past_keys, past_values, cross_keys, cross_values, strict=True)
        keys, values = [], []
        for layer, (past_key, past_value, *cross) in zip(self.layers, caches, strict=True):
            x, k, v = layer(x, mask, (past_key, past_value), cross)
            keys.append(k)
            values.append(v)
        logits = functional.linear(self.layer_norm(x), self.embed_tokens.weight)
        return logits, *keys, *values


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[batch, tokens, heads * head] to [batch, heads, tokens, head]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(x: torch.Tensor) -> torch.Tensor:
    """[batch, heads, tokens, head] to [batch, tokens, heads * head]."""
    return x.transpose(1, 2).flatten(2)


def load() -> nn.Module:
    """Its embedding is shared with the output layer: one weight, two readers."""
    return of(whisper_encoder.load_full())


def of(whole: Any) -> nn.Module:
    """The decoder of a transformers WhisperForConditionalGeneration, sharing its weights."""
    state = whole.model.decoder.state_dict()
    unused = {k for k in state if "encoder_attn.k_proj" in k or "encoder_attn.v_proj" in k}
    with torch.device("meta"):
        decoder = Decoder(whole.config)
    own = {key: value for key, value in state.items() if key not in unused}
    decoder.load_state_dict(own, strict=True, assign=True)
    return decoder.eval()


def example() -> tuple:
    """Two rows, three tokens behind a past of five."""
    caches = [
        tuple(torch.zeros(2, HEADS, length, HEAD) for _ in range(LAYERS))  # one tensor given twice
        for length in (5, 5, 1500, 1500)  # would be captured as one input
    ]
    return (torch.zeros(2, 3, dtype=torch.int64), *caches)


def flat(input_ids: np.ndarray, *caches: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A feed of the captured graph from what `Decoder.forward` takes."""
    feed = {"input_ids": input_ids}
    for name, arrays in zip(list(DYNAMIC)[1:], caches, strict=True):
        feed |= {f"{name}_{layer}": array for layer, array in enumerate(arrays)}
    return feed
