"""A pass's docstring as data: its first line and its sections (rewrite, shapes, options, ...)."""

from __future__ import annotations

import inspect
import re

SECTIONS = ("rewrite", "shapes", "options", "error", "raises", "source")
_HEAD = re.compile(r"(?P<key>[a-z]+):\s{1,}(?P<text>\S.*)?")


def read(doc: str | None) -> tuple[str, dict[str, str]]:
    """(summary, {section: text}); a rewrite keeps its lines, other texts are joined."""
    lines = inspect.cleandoc(doc or "").splitlines()
    summary: list[str] = []
    sections: dict[str, list[str]] = {}
    key = ""
    for line in lines:
        head = _HEAD.match(line)
        if head and head["key"] in (*SECTIONS, "notes"):
            key = head["key"]
            sections[key] = [" " * head.start("text") + head["text"] if head["text"] else ""]
        elif key:
            sections[key].append(line)
        else:
            summary.append(line)
    texts = {
        key: inspect.cleandoc("\n" + "\n".join(found)) if key == "rewrite" else _joined(found)
        for key, found in sections.items()
    }
    return _joined(summary), texts


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
