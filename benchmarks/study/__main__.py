"""Measure the cells of studies that have no row yet, and write docs/results.md.

    python -m benchmarks.study all                       every study, small sample counts
    python -m benchmarks.study vision --samples full     the vision models of every study
    python -m benchmarks.study speech --study edge-asr   one study
    python -m benchmarks.study all --report              only tables and plots, of what is there

Stopped at any time, nothing is lost: the same command goes on with the next cell.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.record import Row, show
from benchmarks.study import grid, plots, report, run
from benchmarks.study.catalogue import DOMAINS, MODELS
from benchmarks.study.grid import Cell
from ir.errors import PtqcError

COLUMNS = ["study", "model", "recipe", "condition", "metric", "figure", "low", "high", "sqnr_db",
           "size_ratio", "cpu_seconds"]  # fmt: skip


def chosen(options: argparse.Namespace) -> list[Cell]:
    """The cells that the options name, study by study."""
    models = [name for name, entry in MODELS.items() if options.domain in ("all", entry.domain)]
    models = [name for name in models if name in (options.models or models)]
    found = []
    for name, study in grid.read().items():
        if options.study and name not in options.study:
            continue
        cells = study.cells(options.samples, models)
        recipes = {grid.FLOAT, *(options.recipes or study.recipes)}
        found += [cell for cell in cells if cell.model in models and cell.recipe in recipes]
    return found


def measure(cells: list[Cell]) -> list[Row]:
    """The rows of the cells, with a progress bar on a terminal and a line each elsewhere."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    rows = []
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("measuring", total=len(cells))
        for cell in cells:
            name = f"{cell.study} {cell.model} {cell.recipe} {cell.condition}"
            progress.update(task, description=name)
            rows.append(run.measure(cell))
            if not console.is_terminal:
                figure = rows[-1].get("failure") or rows[-1]["figure"]
                print(f"{name}: {figure}", flush=True)
            progress.advance(task)
    return rows


def main(arguments: list[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study", description=__doc__, formatter_class=form
    )
    parser.add_argument("domain", nargs="?", default="all", choices=["all", *DOMAINS])
    parser.add_argument("--study", nargs="+", choices=list(grid.read()), help="only these")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="only these")
    parser.add_argument("--recipes", nargs="+", help="only these, by their names in the study")
    parser.add_argument("--samples", choices=["small", "full"], default="small")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    try:
        cells = [] if options.report else run.missing(chosen(options))
        rows = measure(cells)
        if rows:
            show("studies, executed in ONNX Runtime", rows, COLUMNS)
        studies = [(study, run.known(name)) for name, study in grid.read().items()]
        pages = [report.write((study, rows) for study, rows in studies if rows)]
        pages += [page for study, rows in studies if (page := plots.write(study, rows))]
        print("written:", ", ".join(page.name for page in pages))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on with the next cell")
    except PtqcError as error:
        sys.exit(f"benchmarks.study: {error}")


if __name__ == "__main__":
    main()
