"""docs/transforms.md: models x transforms, of the rows that `benchmarks.transforms` kept.

python -m benchmarks.transforms_page
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Row, rows

PAGE = Path(__file__).parents[1] / "docs" / "transforms.md"
BOUNDS = {"float32": 1e-5, "double": 1e-10}
HEAD = """# Transforms on the reference models

Made by `python -m benchmarks.transforms_page` of the rows that `python -m benchmarks.transforms`
kept. A cell says sites folded / refused, and the largest relative difference of an output: in
float32 (bound 1e-5), and with weights in double precision (bound 1e-10). **over**: past a bound.
`random ...` folds random maps into all that admits them. An empty cell was not measured.

The encoder of Whisper is past the bound in float32 under most transforms. A random permutation,
which changes no number and only the order of sums, moves it as far: that is its own rounding.
"""


def page(found: Sequence[Row]) -> str:
    """The whole page: one table, then the reasons by transform, then what failed."""
    models = sorted({row["model"] for row in found})
    names = sorted({row["transform"] for row in found if row["transform"] != "all"})
    cells = {(row["model"], row["transform"]): cell(row) for row in found}
    lines = [[name, *(cells.get((model, name), "") for model in models)] for name in names]
    rule = ["---", *["---:"] * len(models)]
    table = "\n".join(f"| {' | '.join(x)} |" for x in (["transform", *models], rule, *lines))
    return f"{HEAD}\n{table}\n\n## Reasons\n\n{reasons(found, names)}\n{failures(found)}"


def cell(row: Row) -> str:
    if "failure" in row:
        return "see below"
    figures = [f"{row[kind]:.0e}" if kind in row else "-" for kind in BOUNDS]
    mark = " **over**" if over(row) else ""
    return f"{row['folded']} / {row['refused']}; {', '.join(figures)}{mark}"


def over(row: Row) -> list[str]:
    """The precisions in which a difference passes its bound."""
    return [kind for kind, bound in BOUNDS.items() if row.get(kind, 0.0) > bound]


def reasons(found: Sequence[Row], names: Sequence[str]) -> str:
    """Per transform, the reasons with the sites that they refused over all models."""
    lines = []
    for name in names:
        total: Counter[str] = Counter()
        for row in found:
            if row["transform"] == name:
                total.update(row.get("reasons", {}))
        lines += [f"- **{name}**", *(f"  - {n} x {reason}" for reason, n in total.most_common())]
    return "\n".join(lines) + "\n"


def failures(found: Sequence[Row]) -> str:
    """What raised, and what was measured in float32 only."""
    lines = [
        f"- {row['model']}, {row['transform']}: {row[key].split('; ')[0]}"
        for row in found for key in ("failure", "double_failure") if key in row
    ]  # fmt: skip
    return "\n## Not measured\n\n" + "\n".join(lines) + "\n" if lines else ""


def main() -> None:
    PAGE.write_text(page(rows("transforms")), "utf-8")
    print(f"written: {PAGE.name}")


if __name__ == "__main__":
    main()
