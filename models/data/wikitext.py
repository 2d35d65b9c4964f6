"""WikiText-2, the raw test split, for measuring perplexity. CC BY-SA 3.0; not part of the project.

Looked for in PTQC_WIKITEXT, then as `data/wiki.test.raw` in $PTQC_SHARED or ../shared.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from ir.errors import DataError
from models.weights.packages import digest

SHA256 = "4f3e427e4aff23acff917a8a51aeae21bf12832256e26914c8fc250dcef4103c"


@cache
def text() -> str:
    """The whole split. Raises DataError, naming the variable, when absent or another text."""
    shared = Path(os.environ.get("PTQC_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    file = Path(os.environ.get("PTQC_WIKITEXT", shared / "data" / "wiki.test.raw"))
    if not file.is_file():
        hint = "set PTQC_WIKITEXT to the file wiki.test.raw of WikiText-2"
        raise DataError("no WikiText-2 test split", at=str(file), hint=hint)
    if digest(file) != SHA256:
        raise DataError("not the raw test split of WikiText-2", at=str(file))
    return file.read_text(encoding="utf-8")
