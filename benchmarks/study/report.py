"""docs/results.md: tables and plots of all rows, between markers, so that the prose stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import Row
from benchmarks.study.grid import FLOAT, Study
from benchmarks.study.tasks.base import CLEAN, EXACT

PAGE = Path(__file__).parents[2] / "docs" / "results.md"
HEAD = "# Results\n\nEvery figure is of the model as ONNX Runtime executes it, on one thread.\n"


def write(studies: Iterable[tuple[Study, list[Row]]], page: Path = PAGE) -> Path:
    """Put the tables of each study into the page; text outside the markers is left alone."""
    text = page.read_text("utf-8") if page.exists() else HEAD
    for study, rows in studies:
        first, last = f"<!-- study {study.name} -->", f"<!-- end {study.name} -->"
        if first not in text:
            source = f"Source: {study.source}." if study.source else ""
            prose = f"{study.why} {source}".rstrip()
            plot = f"![{study.name}](plots/{study.name}.svg)"
            text += f"\n## {study.name}\n\n{prose}\n\n{plot}\n\n{first}\n{last}\n"
        head, rest = text.split(first)
        text = f"{head}{first}\n{section(study, rows)}\n{last}{rest.split(last)[1]}"
    draft = page.with_suffix(".part")
    draft.write_text(text, "utf-8")
    draft.replace(page)
    return page


def section(study: Study, rows: Sequence[Row]) -> str:
    """The tables of one study: all models, then each one, and what failed."""
    parts = (
        [overview(study, rows)] if len(study.models) > 1 and study.conditions == (CLEAN,) else []
    )
    for model in study.models:
        mine = [row for row in ordered(study, rows) if row["model"] == model]
        good = [row for row in mine if "failure" not in row]
        if good:
            parts.append(_title(model, good))
            parts.append(by_condition(good) if len(study.conditions) > 1 else table(good))
        failed = [row for row in mine if "failure" in row]
        parts += [f"- {variant(row)}, {row['condition']}: {row['failure']}" for row in failed]
    return "\n\n".join(parts) if parts else "No cell has been measured yet."


def ordered(study: Study, rows: Iterable[Row]) -> list[Row]:
    """As the study lists them, of each cell the row of most samples; rows of recipes that it has
    no more are left out."""
    recipes, conditions = [FLOAT, *study.recipes], list(study.conditions)
    texts = {FLOAT: "", **study.recipes}
    kept: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: row["samples"]):
        if row["condition"] in conditions and texts.get(row["recipe"]) == row["pipeline"]:
            cell = ("model", "recipe", "mixed", "condition", "seed")
            kept[tuple(row["parts"]), *(row[key] for key in cell)] = row
    return sorted(
        kept.values(),
        key=lambda r: (recipes.index(r["recipe"]), r["parts"], r["mixed"],
                       conditions.index(r["condition"]), r["seed"]),
    )  # fmt: skip


def variant(row: Row) -> str:
    """The recipe with what else tells it from others."""
    notes = ["+".join(row["parts"])] if row["parts"] else []
    notes += [f"{row['mixed']:.0%} degraded calibration"] if row["mixed"] else []
    notes += [f"seed {row['seed']}"] if row["seed"] else []
    return f"{row['recipe']} ({', '.join(notes)})" if notes else row["recipe"]


def table(rows: Sequence[Row]) -> str:
    """One line a row."""
    more = list(dict.fromkeys(name for row in rows for name in row["more"]))
    heads = ["recipe", "samples", rows[0]["metric"], "95 % interval", "SQNR, dB", "weights, MB",
             "of float", "memory I/O, MB", "GBOPs", *more]  # fmt: skip
    lines = [
        [variant(row), str(row["samples"]), _figure(row["figure"]), _interval(row), _db(row),
         f"{row['weight_bytes'] / 1e6:.2f}", f"{row['size_ratio']:.3f}",
         f"{row['memory_io_bytes'] / 1e6:.2f}", f"{row['bops'] / 1e9:.1f}",
         *(_figure(row["more"].get(name)) for name in more)]
        for row in rows
    ]  # fmt: skip
    return _markdown(heads, lines)


def overview(study: Study, rows: Sequence[Row]) -> str:
    """One line a model: its figure and the SQNR under every recipe."""
    lines = []
    for model in study.models:
        good = [r for r in ordered(study, rows) if r["model"] == model and "failure" not in r]
        found = {row["recipe"]: row for row in good}
        if FLOAT not in found:
            continue
        first = found[FLOAT]
        interval = _interval(first)
        cells = [f"{_figure(first['figure'])}{f' ({interval})' if interval else ''}"]
        for recipe in study.recipes:
            row = found.get(recipe)
            cells.append(f"{_figure(row['figure'])}; {_db(row)} dB" if row else "")
        lines.append([model, first["metric"], str(first["samples"]), *cells])
    heads = ["model", "figure", "samples", "float (95 % interval)", *study.recipes]
    return _markdown(heads, lines)


def by_condition(rows: Sequence[Row]) -> str:
    """One line a variant, one column a condition: the figure, and what it lost of the clean one."""
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    found = {(variant(row), row["condition"]): row for row in rows}
    lines = []
    for name in dict.fromkeys(variant(row) for row in rows):
        clean = found.get((name, CLEAN))
        cells = (_dropped(found.get((name, c)), clean) for c in conditions)
        lines.append([name, *cells])
    return _markdown([f"{rows[0]['metric']} (drop)", *conditions], lines)


def _dropped(row: Row | None, clean: Row | None) -> str:
    if row is None:
        return ""
    if clean is None or row is clean or not clean["figure"]:
        return _figure(row["figure"])
    lost = (clean["figure"] - row["figure"]) / clean["figure"] * (1 if row["higher"] else -1)
    return f"{_figure(row['figure'])} ({lost:+.1%})"


def _title(model: str, rows: Sequence[Row]) -> str:
    first = rows[0]
    direction = "more is better" if first["higher"] else "less is better"
    return f"**{model}**: {first['metric']}, {direction}; {first['samples']} samples."


def _interval(row: Row) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    return f"{_figure(row['low'])} to {_figure(row['high'])}"


def _db(row: Row) -> str:
    exact = row["recipe"] == FLOAT or row["sqnr_db"] is None
    return "" if exact else f"{row['sqnr_db']:.1f}"


def _figure(value: float | None) -> str:
    return "" if value is None else "exact" if value == EXACT else f"{value:.4g}"


def _markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *lines))
