"""List the recipes: what each does, for which models, and its options.

A recipe is a named pipeline of passes. `ptqc explain RECIPE` shows its steps.
"""

from __future__ import annotations

import argparse
from typing import Any

from .screen import Screen

EXAMPLE = "  ptqc recipes"


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has no options of its own."""


def stopped(args: argparse.Namespace) -> str:
    return "nothing was written"


def run(args: argparse.Namespace, screen: Screen) -> Any:
    from passes import registry

    found = registry.recipes()
    screen.show(
        _table(found), "ptqc explain RECIPE shows a recipe's steps; --set OPTION=VALUE changes one."
    )
    return [
        {
            "name": r.name,
            "why": r.why,
            "paper": r.paper,
            "domains": r.domains,
            "options": r.options,
            "pipeline": r.text(),
        }
        for r in found.values()
    ]


def _table(found) -> Any:
    from rich.table import Table

    from .tables import style

    table = Table("recipe", "what it is for", "models", "options (--set)", **style())
    for recipe in found.values():
        options = "\n".join(f"{key}={value}" for key, value in recipe.options.items())
        table.add_row(
            f"[bold]{recipe.name}[/]", recipe.why, ", ".join(recipe.domains), options or "-"
        )
    return table
