"""Explain a pass or a recipe: what it rewrites, its options, its error, where it comes from.

Without a name it lists every pass, those of installed plugins included.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import typing
from typing import Any

from .docstrings import SECTIONS, read
from .screen import Screen

EXAMPLE = "  ptqc explain w8a8\n  ptqc explain clip"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="PASS|RECIPE", help="its name, as in a pipeline")


def stopped(args: argparse.Namespace) -> str:
    return "nothing was written"


def run(args: argparse.Namespace, screen: Screen) -> Any:
    from passes import registry

    known = registry.passes()
    if args.name is None:
        return _list(known, screen)
    if args.name in registry.recipes():
        return _recipe(registry.recipes()[args.name], screen)
    if args.name in known:
        return _pass(known[args.name], screen)
    from ir.errors import PipelineError

    names = [*known, *registry.recipes()]
    near = difflib.get_close_matches(args.name, names, 3)
    raise PipelineError(
        f"no pass or recipe is called '{args.name}'",
        hint=f"did you mean {', '.join(near)}?" if near else "ptqc explain lists them",
    )


def facts(cls: type) -> dict[str, Any]:
    """All that `explain` shows of a pass."""
    summary, sections = read(cls.__doc__)
    hints = typing.get_type_hints(cls)
    options = [
        {"name": f.name, "type": type_name(hints[f.name]), "default": _default(f)}
        for f in dataclasses.fields(cls)
    ]
    return {
        "name": cls.name,
        "summary": summary,
        "effect": cls.effect.name.lower(),  # type: ignore[attr-defined]
        "effect_means": cls.effect.value,
        "options": options,
        "sections": sections,  # type: ignore[attr-defined]
    }


def type_name(kind: Any) -> str:
    """A field's type as a user would write its values."""
    from enum import Enum

    arguments = typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(member.value for member in kind)
    if typing.get_origin(kind) is tuple:
        return f"[{type_name(arguments[0])} ...]"
    if arguments:
        return "|".join("none" if a is type(None) else type_name(a) for a in arguments)
    return {"str": "text", "bool": "true|false", "float": "number", "int": "whole number"}.get(
        kind.__name__, kind.__name__
    )


def _default(option: dataclasses.Field) -> str:
    from passes.core import option_text

    return "none" if option.default is None else option_text(option.default)


def _pass(cls: type, screen: Screen) -> Any:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from .tables import style

    found = facts(cls)
    screen.show(Text.assemble((found["name"], "bold"), "  ", found["summary"]), "")
    if found["options"]:
        table = Table("option", "type", "default", **style())
        for option in found["options"]:
            table.add_row(Text(option["name"]), Text(option["type"]), Text(option["default"]))
        screen.show(Padding(table, (0, 0, 1, 2)))
    for key in SECTIONS:
        if key in found["sections"]:
            screen.show(Text(key, "bold"), Padding(Text(found["sections"][key]), (0, 0, 1, 2)))
    screen.show(
        Text("effect", "bold"), Padding(Text(f"{found['effect']}: {found['effect_means']}"), (0, 2))
    )
    return found


def _recipe(recipe, screen: Screen) -> Any:
    from rich.table import Table
    from rich.text import Text

    from .tables import style

    steps = [{"step": str(step), **facts(type(step))} for step in recipe.read()]
    table = Table("", "step", "what it does", **style())
    for number, step in enumerate(steps, 1):
        table.add_row(str(number), Text(step["step"]), Text(step["summary"]))
    screen.show(
        Text.assemble((recipe.name, "bold"), "  ", recipe.why),
        "",
        Text(f"for      {', '.join(recipe.domains)}"),
        Text(f"paper    {recipe.paper}"),
        Text("options  " + (", ".join(f"{k}={v}" for k, v in recipe.options.items()) or "none")),
        "",
        table,
    )
    return {
        "name": recipe.name,
        "why": recipe.why,
        "paper": recipe.paper,
        "options": recipe.options,
        "pipeline": recipe.text(),
        "steps": steps,
    }


def _list(known: dict[str, type], screen: Screen) -> Any:
    from rich.table import Table
    from rich.text import Text

    from .tables import style

    table = Table("pass", "effect", "what it does", **style())
    rows = [facts(known[name]) for name in sorted(known)]
    for row in rows:
        table.add_row(Text(row["name"], "bold"), row["effect"], Text(row["summary"]))
    screen.show(table)
    return rows
