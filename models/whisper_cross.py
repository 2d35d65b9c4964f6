"""Keys and values of Whisper tiny.en's cross-attention: computed once per recording.

source:   as in `whisper_encoder`
inputs:   encoder_states f32[batch, 1500, 384], the output of `whisper_encoder`
outputs:  per layer i cross_keys_i, cross_values_i f32[batch, 6, 1500, 64]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models import whisper_encoder
from models.whisper_decoder import LAYERS, split

DYNAMIC = {"encoder_states": {0: "batch"}}
OUTPUTS = tuple(
    f"{kind}_{layer}" for kind in ("cross_keys", "cross_values") for layer in range(LAYERS)
)


class Cross(nn.Module):
    def __init__(self, decoder: Any) -> None:
        super().__init__()
        attentions = [layer.encoder_attn for layer in decoder.layers]
        self.heads = attentions[0].num_heads
        self.keys = nn.ModuleList(each.k_proj for each in attentions)
        self.values = nn.ModuleList(each.v_proj for each in attentions)

    def forward(self, encoder_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        projections = (*self.keys, *self.values)
        return tuple(split(linear(encoder_states), self.heads) for linear in projections)


def load() -> nn.Module:
    return of(whisper_encoder.load_full())


def of(whole: Any) -> nn.Module:
    """The projections of a transformers WhisperForConditionalGeneration, sharing its weights."""
    return Cross(whole.model.decoder).eval()


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 1500, 384),)
