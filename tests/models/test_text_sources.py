"""GGUF files, the Brown corpus and WikiText: what is read, and what is said without them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ir.errors import DataError
from models import decoder
from models.data import brown, wikitext
from models.weights import gguf

TOKENS = [*"ab1Ġ", "ab", "Ġa", "<|end|>"]


def rotated_pairs(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """llama.cpp's rotary embedding: channels 2 i and 2 i + 1 turn by angle i."""
    found = np.empty_like(x)
    for i, turn in enumerate(angle):
        a, b = x[2 * i], x[2 * i + 1]
        found[2 * i] = a * np.cos(turn) - b * np.sin(turn)
        found[2 * i + 1] = a * np.sin(turn) + b * np.cos(turn)
    return found


def test_halves_give_the_products_of_pairs() -> None:
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 16, 5))  # 2 heads of 8 channels, 5 inputs
    x, y = rng.standard_normal((2, 5))
    near, far = rng.standard_normal((2, 4))
    wanted = [
        rotated_pairs((q @ x)[at], near) @ rotated_pairs((k @ y)[at], far)
        for at in (slice(0, 8), slice(8, 16))
    ]

    def heads(weight: np.ndarray, vector: np.ndarray, angle: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy((gguf.halves(weight, 2) @ vector).reshape(2, 8))
        turn = torch.from_numpy(angle).repeat(2)
        return decoder.rotate(rows, turn.cos(), turn.sin())

    found = (heads(q, x, near) * heads(k, y, far)).sum(-1)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)
    assert not np.allclose(gguf.halves(q, 2), q)


def written(file: Path, *, rule: str = "smollm", extra: str | None = None) -> Path:
    package = pytest.importorskip("gguf")
    writer = package.GGUFWriter(file, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_token_types([1] * (len(TOKENS) - 1) + [gguf.CONTROL])
    weight = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("blk.3.attn_norm.weight", weight[0])
    for name in ("attn_v", "attn_k"):
        coded = package.quants.quantize(weight, package.GGMLQuantizationType.Q8_0)
        kind = package.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"blk.3.{name}.weight", coded, raw_dtype=kind)
    if extra:
        writer.add_tensor(extra, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_gguf_weights(tmp_path: Path) -> None:
    found = gguf.state_dict(written(tmp_path / "a.gguf"), heads=1, kv_heads=1)
    names = [f"blocks.3.{name}.weight" for name in ("norm1", "v", "k")]
    assert sorted(found) == sorted(names)
    weight = np.arange(64).reshape(2, 32)
    np.testing.assert_array_equal(found[names[0]], weight[0])
    np.testing.assert_allclose(found[names[1]], weight, atol=0.25)
    assert all(array.dtype == np.float32 for array in found.values())
    found[names[0]] += 1  # not a view of the file


def test_gguf_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(DataError, match="GGUF files need gguf"):
        gguf.state_dict(tmp_path / "a.gguf", heads=1, kv_heads=1)


def test_gguf_of_another_architecture(tmp_path: Path) -> None:
    file = written(tmp_path / "a.gguf", extra="blk.3.ssm_in.weight")
    with pytest.raises(DataError, match="plain Llama"):
        gguf.state_dict(file, heads=1, kv_heads=1)


def test_gguf_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = gguf.tokenizer(written(tmp_path / "a.gguf"))
    said = tokenizer.encode("ab a11<|end|>b", add_special_tokens=False)
    assert said.tokens == ["ab", "Ġa", "1", "1", "<|end|>", "b"]
    assert tokenizer.decode(said.ids, skip_special_tokens=False) == "ab a11<|end|>b"
    with pytest.raises(DataError, match="rule llama-bpe"):
        gguf.tokenizer(written(tmp_path / "b.gguf", rule="llama-bpe"))


def test_brown_without_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = "\n\n\tThe/at 1/2/cd ,/, and/cc\nso/rb ./.\n\n\n\t``/`` No/rb ''/''\n"
    assert brown._plain(tagged) == "The 1/2 , and so .\n`` No ''"
    monkeypatch.setattr(brown, "documents", lambda: ("a", "b", "c"))
    assert (brown.text(0), brown.text(1)) == ("a\nc", "b")


def test_texts_that_are_absent_or_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTQC_BROWN", str(tmp_path))
    monkeypatch.setenv("PTQC_WIKITEXT", str(tmp_path / "w"))
    with pytest.raises(DataError, match="npm install"):
        brown.folder()
    with pytest.raises(DataError, match="PTQC_WIKITEXT"):
        wikitext.text.__wrapped__()
    (tmp_path / "ca01").write_text("other/jj words/nns")
    (tmp_path / "w").write_text("other words")
    with pytest.raises(DataError, match="differs from the pinned"):
        brown.documents.__wrapped__()
    with pytest.raises(DataError, match="not the raw test split"):
        wikitext.text.__wrapped__()
