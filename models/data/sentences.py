"""English sentences that ship with every Python: the language reference behind `help()`.

Source: `pydoc_data.topics` of the running interpreter, PSF licence. The text differs a little
between Python versions, so a figure measured on it names the version.
"""

from __future__ import annotations

import re
from functools import cache
from pydoc_data.topics import topics  # pyright: ignore[reportMissingImports]

import numpy as np


@cache
def sentences() -> tuple[str, ...]:
    """Distinct sentences of 4 to 60 words in running prose, in order of topic."""
    found: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            if not re.search(r"::|>>>|\.\. ", paragraph):
                found.update(dict.fromkeys(_split(" ".join(paragraph.split()))))
    return tuple(found)


def _split(paragraph: str) -> list[str]:
    parts = re.split(r"(?<=[.!?]) +(?=[A-Z])", paragraph)
    return [p for p in parts if re.match(r"[A-Z].*[.!?]$", p) and 4 <= len(p.split()) <= 60]


def sample(n: int, *, part: int, parts: int = 2, seed: int = 0) -> list[str]:
    """n sentences drawn without repetition from the `part`-th of `parts` disjoint shares."""
    share = sentences()[part::parts]
    chosen = np.random.default_rng(seed).choice(len(share), size=n, replace=n > len(share))
    return [share[i] for i in chosen]
