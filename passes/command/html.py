"""The report of `ptqc quantize --html`: one file that needs nothing else, its plots inside."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .screen import write_whole

if TYPE_CHECKING:
    from .quantize import Outcome


def require() -> None:
    """OutputError with the command to type when the report's extra is not installed."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        from ir.errors import OutputError

        raise OutputError(
            "--html needs jinja2, which is not installed", hint="run: pip install 'ptqc[report]'"
        ) from error


def write(path: Path, found: dict[str, Any], outcome: Outcome) -> None:
    """Write the report, whole or not at all."""
    from . import layers

    write_whole(
        path,
        render(
            found,
            errors=layers.errors(outcome.result, outcome.data),
            weights=layers.weights(outcome.result),
            activations=layers.activations(outcome.result),
        ),
    )


def render(
    found: dict[str, Any],
    *,
    errors: list[dict[str, Any]],
    weights: list[dict[str, Any]],
    activations: list[dict[str, Any]],
) -> str:
    """The page; `found` as in `closing.facts`, the others as in `layers`."""
    import jinja2

    from . import tables
    from .layers import scaled

    text = resources.files("passes.command").joinpath("report.html.j2").read_text("utf-8")
    page = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters |= {
        "db": tables.decibels,
        "size": tables.size,
        "seconds": tables.seconds,
        "percent": lambda part, whole: f"{100 * part / whole:.2f}" if whole else "0",
        "bar": lambda db: f"{min(max(db, 0.0), 40.0) / 40 * 100:.1f}",
        "grade": _grade,
    }
    page.globals |= {"scaled": scaled}
    widest = {
        "weights": max((max(abs(w["low"]), abs(w["high"])) for w in weights), default=0.0),
        "activations": max(
            (max(abs(a["seen_low"]), abs(a["seen_high"])) for a in activations), default=0.0
        ),
    }
    return page.from_string(text).render(
        found=found, errors=errors, weights=weights, activations=activations, widest=widest
    )


def _grade(db: float) -> str:
    """bad below 15 dB, fair below 25, else good: the colours of a bar."""
    if math.isnan(db) or db < 15:
        return "bad"
    return "fair" if db < 25 else "good"
