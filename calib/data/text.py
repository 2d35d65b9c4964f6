"""Text files to windows of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib.data.preprocess import Options, TextOptions, read
from calib.data.signature import Feed, Input
from ir.errors import DataError

SUFFIXES = frozenset({".txt", ".md", ".raw"})
_ROLES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_BLOCK = 1 << 16  # characters tokenized at a time, cut at a line's end
_WINDOW = 128


class Text:
    """Text as samples of [1, tokens]: ids, an attention mask, zeros for types, 0.. for positions.

    Inputs are told apart by the standard names (input_ids, attention_mask, token_type_ids,
    position_ids); a single integer input takes the ids whatever its name. Nothing is padded
    unless the input's length is fixed: padding tokens would enter the statistics.

    raises: DataError on other inputs, without a tokenizer, on text that is not UTF-8.
    """

    def __init__(self, paths: Sequence[Path], inputs: Sequence[Input], options: Options) -> None:
        self.paths = paths
        self.options = read(TextOptions, options)
        self.roles = _roles(inputs)
        fixed = next((i.shape[1] for i in inputs if i.shape and len(i.shape) == 2), None)
        self.fixed = fixed if isinstance(fixed, int) else None
        self.window = self.options.window or self.fixed or _WINDOW
        self.tokenizer = _load(self.options.tokenizer)

    def stream(self) -> Iterator[tuple[str, Feed]]:
        for path in self.paths:
            lines = self.options.split == "lines"
            pieces = self._lines(path) if lines else self._windows(path)
            for count, ids in enumerate(pieces, 1):
                yield f"{path}, {'line' if lines else 'window'} {count}", self._feed(ids)

    def _windows(self, path: Path) -> Iterator[list[int]]:
        waiting: list[int] = []
        for block in _blocks(path):
            waiting += self.tokenizer.encode(block, add_special_tokens=False).ids
            full = len(waiting) - len(waiting) % self.window
            for start in range(0, full, self.window):
                yield waiting[start : start + self.window]
            waiting = waiting[full:]

    def _lines(self, path: Path) -> Iterator[list[int]]:
        for block in _blocks(path):
            for line in filter(str.strip, block.splitlines()):
                ids = self.tokenizer.encode(line.strip()).ids[: self.window]
                if ids:
                    yield ids

    def _feed(self, ids: list[int]) -> Feed:
        missing = max(0, (self.fixed or 0) - len(ids))
        row = np.pad(np.array(ids, np.int64), (0, missing))[None]
        made = {
            "input_ids": row,
            "attention_mask": (np.arange(row.shape[1]) < len(ids)).astype(np.int64)[None],
            "token_type_ids": np.zeros_like(row),
            "position_ids": np.arange(row.shape[1])[None],
        }
        return {name: made[role] for name, role in self.roles.items()}


def _roles(inputs: Sequence[Input]) -> dict[str, str]:
    """{input name: what it takes}"""
    if len(inputs) == 1 and inputs[0].dtype.kind in "iu":
        return {inputs[0].name: "input_ids"}
    strange = [one for one in inputs if one.name not in _ROLES]
    if strange:
        raise DataError(
            f"text cannot fill the input {strange[0]}",
            hint=f"known are {', '.join(_ROLES)}; prepare others yourself and give an .npz",
        )
    return {one.name: one.name for one in inputs}


def _load(path: str | None) -> Any:
    if path is None:
        raise DataError("text needs a tokenizer", hint="say tokenizer=path/to/tokenizer.json")
    try:
        import tokenizers
    except ImportError as error:
        raise DataError("text needs `tokenizers`", hint="pip install tokenizers") from error
    if not Path(path).is_file():
        raise DataError("tokenizer not found", at=path, hint="give a tokenizer.json")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # the binding raises bare Exception
        raise DataError(
            f"tokenizer cannot be read: {error}", at=path, hint="give a tokenizer.json"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _blocks(path: Path) -> Iterator[str]:
    """The file in pieces of whole lines, about _BLOCK characters each."""
    try:
        with open(path, encoding="utf-8") as file:
            while lines := file.readlines(_BLOCK):
                yield "".join(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"text cannot be read: {error}", at=path, hint="give a UTF-8 text file"
        ) from error
