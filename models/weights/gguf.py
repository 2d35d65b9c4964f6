"""Reads GGUF files: weights of a Llama under the names of `models.decoder`, and the tokenizer.

The format's own reader and dequantizer do the work (package `gguf`). llama.cpp rotates neighbouring
pairs of channels where Hugging Face rotates the two halves, so its converter interleaves the rows
of q and k within every head; that is undone here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ir.errors import DataError

NAMES = {
    "attn_norm": "norm1",
    "ffn_norm": "norm2",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
CONTROL = 3  # the token type of <|im_start|> and its like


def reader(file: Path) -> Any:
    """The package's reader. Raises DataError when the package is missing."""
    try:
        from gguf import GGUFReader  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise DataError("GGUF files need gguf", hint="pip install 'ptqc[models]'") from error
    return GGUFReader(file)


def state_dict(file: Path, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    """Every tensor as f32, matrices [out, in]. Raises DataError for a name that is not known."""
    tensors = reader(file).tensors
    from gguf.quants import dequantize  # after `reader`, which says how to install it  # pyright: ignore[reportMissingImports]

    found = {}
    for tensor in tensors:
        # A copy: what is not quantized comes as a view of the mapped file.
        array = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        kind = tensor.name.split(".")[-2]
        if kind in ("attn_q", "attn_k"):
            array = halves(array, heads if kind == "attn_q" else kv_heads)
        found[_name(tensor.name)] = array
    return found


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of every head from pairs (0 a 1 b ...) to halves (0 1 ... a b ...)."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _name(name: str) -> str:
    match name.split("."):
        case ["token_embd", "weight"]:
            return "embed.weight"
        case ["output_norm", "weight"]:
            return "norm.weight"
        case ["blk", number, kind, "weight"] if kind in NAMES:
            return f"blocks.{number}.{NAMES[kind]}.weight"
    raise DataError("not a tensor of a plain Llama", at=name)


def tokenizer(file: Path) -> Any:
    """The byte-level BPE tokenizer of the file, digits one by one (its `smollm` rule).

    Control tokens are found in the text. Raises DataError for another kind of tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = reader(file).fields
    kind = [fields[f"tokenizer.ggml.{key}"].contents() for key in ("model", "pre")]
    if kind != ["gpt2", "smollm"]:
        raise DataError(f"the tokenizer is {kind[0]} with rule {kind[1]}", at=str(file))
    keys = ("tokens", "merges", "token_type")
    tokens, merges, types = (fields[f"tokenizer.ggml.{key}"].contents() for key in keys)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    found = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges]))
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    found.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    found.add_special_tokens([AddedToken(token, special=True) for token in control])
    return found
