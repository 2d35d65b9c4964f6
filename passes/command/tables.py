"""How results look in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def style() -> dict[str, Any]:
    """One look for every table."""
    from rich import box

    return {"box": box.SIMPLE_HEAD, "pad_edge": False, "header_style": "bold"}


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], note: str = ""
) -> Any:
    """A table under its title; a column whose name begins with `>` is aligned right."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = Table(**style())
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    above = [Text(title, "bold")] if title else []
    return Group(*above, made, *([Text(note)] if note else []))


def size(count: float) -> str:
    """Bytes with a unit of 1000: 4.65 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return (
                f"{count:.0f} B"
                if unit == "B"
                else f"{count:.3g} {unit}"
                if count < 100
                else f"{count:.0f} {unit}"
            )
        count /= 1000
    return ""


def decibels(value: float) -> str:
    if math.isinf(value):
        return "identical" if value > 0 else "lost"
    return f"{value:.1f} dB"


def count(number: float) -> str:
    """1,234 or 4.65 M or 1.2 G."""
    for limit, unit in ((1e9, "G"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:,.0f}"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 100 else f"{value / 60:.1f} min"
