"""Plots of a study as SVG files that are the same for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Row
from benchmarks.study.grid import FLOAT, Study
from benchmarks.study.report import ordered, variant
from benchmarks.study.tasks.base import EXACT
from ir.errors import DataError

FOLDER = Path(__file__).parents[2] / "docs" / "plots"


def write(study: Study, rows: Sequence[Row], folder: Path = FOLDER) -> Path | None:
    """One panel a model: the figure of every variant, or along the conditions. None without rows.

    Raises DataError without matplotlib.
    """
    good = [row for row in ordered(study, rows) if "failure" not in row]
    models = [model for model in study.models if any(row["model"] == model for row in good)]
    if not models:
        return None
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("plots need matplotlib", hint="pip install 'ptqc[study]'") from error
    columns = min(3, len(models))
    lines = -(-len(models) // columns)
    with mpl.rc_context({"svg.hashsalt": study.name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.4 * columns, 3.3 * lines), layout="constrained")
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axis, model in zip(axes, models, strict=False):
            mine = [row for row in good if row["model"] == model]
            (_conditions if len(study.conditions) > 1 else _variants)(axis, mine)
            axis.set_title(model, fontsize=10)
            axis.grid(alpha=0.25)
        for axis in axes[len(models) :]:
            axis.set_visible(False)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{study.name}.svg"
        figure.savefig(path, metadata={"Date": None})
    return path


def _variants(axis, rows: Sequence[Row]) -> None:
    """One line a variant: the figure in its interval, the size beside the name; float dashed."""
    coded = [row for row in rows if row["recipe"] != FLOAT][::-1]
    for row in rows:
        if row["recipe"] == FLOAT and row["figure"] != EXACT:
            axis.axvline(row["figure"], color="grey", lw=1, ls="--")
    for place, row in enumerate(coded):
        low, high = row["low"], row["high"]
        spread = None if low is None else [[row["figure"] - low], [high - row["figure"]]]
        axis.errorbar([row["figure"]], [place], xerr=spread, marker="o", ms=4, lw=1, color="C0")
    axis.set_yticks(
        range(len(coded)), [f"{variant(row)}  {row['size_ratio']:.2f}" for row in coded], fontsize=7
    )
    axis.set_xlabel(f"{rows[0]['metric']}   (names: bytes of weights, of float)", fontsize=7)
    axis.margins(0.08)


def _conditions(axis, rows: Sequence[Row]) -> None:
    """One line a variant over the conditions."""
    names = list(dict.fromkeys(row["condition"] for row in rows))
    for name in dict.fromkeys(variant(row) for row in rows):
        found = {row["condition"]: row["figure"] for row in rows if variant(row) == name}
        style = {"color": "black", "lw": 2} if name == FLOAT else {"lw": 1}
        axis.plot([names.index(c) for c in found], list(found.values()), marker="o", ms=3,
                  label=name, **style)  # fmt: skip
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
    axis.set_ylabel(rows[0]["metric"])
    axis.legend(fontsize=6, frameon=False)
