"""Rows of a benchmark: printed as a table, kept as JSON lines in benchmarks/results/."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def machine() -> Row:
    """What the figures of a run depend on."""
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    packages = ("onnxruntime", "onnx", "torch", "numpy")
    return {
        "machine": platform.machine(),
        "vnni": "avx512_vnni" in flags or "avx_vnni" in flags,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def keep(family: str, row: Row, keys: Iterable[str]) -> None:
    """Adds a row to a family's file, in place of an older one with the same values of `keys`."""
    file = RESULTS / f"{family}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    same = [row[key] for key in keys]
    kept = [each for each in rows(family) if [each.get(key) for key in keys] != same]
    ordered = sorted([*kept, row], key=lambda each: [str(each.get(key)) for key in keys])
    draft = file.with_suffix(".part")
    draft.write_text("".join(json.dumps(each) + "\n" for each in ordered))
    draft.replace(file)


def rows(family: str) -> list[Row]:
    """The rows of a family's file, in its order."""
    file = RESULTS / f"{family}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def show(title: str, rows: list[Row], columns: list[str]) -> None:
    """A table of the columns, in this order; below it, one line for each row that failed."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "peer") else "right")
    for row in rows:
        if "failure" not in row:
            table.add_row(*(str(row.get(column, "")) for column in columns))
    console = Console() if Console().is_terminal else Console(width=170)
    console.print(table)
    for row in rows:
        if "failure" in row:
            name = " ".join(str(row[key]) for key in ("model", "peer", "config") if key in row)
            console.print(f"{name}: {row['failure']}", markup=False, highlight=False)
