"""The README's tables are made from the docstrings and from recipes.toml, and stay so."""

from pathlib import Path

import pytest

from passes import registry

README = Path(__file__).parent.parent / "README.md"
MARKS = {name: (f"<!-- {name} -->", f"<!-- end {name} -->") for name in ("passes", "recipes")}


def pass_table() -> str:
    """One row a pass: name, effect, the first line of its docstring."""
    rows = ["| pass | effect | what it does |", "|---|---|---|"]
    for name, cls in sorted(registry.passes().items()):
        if cls.__module__.startswith("passes."):
            summary = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
            rows.append(f"| `{name}` | {cls.effect.name} | {summary} |")
    return "\n".join(rows)


def recipe_table() -> str:
    """One row a recipe: name, options, why."""
    rows = ["| recipe | options | why |", "|---|---|---|"]
    for name, recipe in registry.recipes().items():
        options = ", ".join(f"`{k}={v}`" for k, v in recipe.options.items()) or "-"
        rows.append(f"| `{name}` | {options} | {recipe.why} |")
    return "\n".join(rows)


def between(text: str, name: str) -> str:
    first, last = MARKS[name]
    return text.split(first)[1].split(last)[0].strip()


@pytest.mark.parametrize(("name", "make"), [("passes", pass_table), ("recipes", recipe_table)])
def test_tables_are_fresh(name, make, request):
    text = README.read_text("utf-8")
    if request.config.getoption("--update-golden"):
        first, last = MARKS[name]
        head, rest = text.split(first)
        text = f"{head}{first}\n{make()}\n{last}{rest.split(last)[1]}"
        README.write_text(text, "utf-8")
    assert between(text, name) == make(), "run pytest tests/test_readme.py --update-golden"
