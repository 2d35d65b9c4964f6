"""Every pass and recipe by name: our own folders, and other packages' by one entry point.

A third party adds passes with

    [project.entry-points."passes.plugins"]
    my-package = "my_package.passes"

a module whose import registers them (`passes.core.register`).
"""

from __future__ import annotations

import importlib
import pkgutil
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata, resources
from typing import TYPE_CHECKING

from ir.errors import PipelineError

from .core import REGISTRY, Pass

if TYPE_CHECKING:
    from .pipeline import Pipeline

_NOT_PASSES = {
    "core",
    "pipeline",
    "run",
    "registry",
    "report",
    "watch",
    "cli",
    "command",
    "__main__",
}
PLUGINS = "passes.plugins"


@lru_cache(maxsize=1)
def _load() -> bool:
    package = importlib.import_module("passes")
    for module in pkgutil.walk_packages(package.__path__, "passes."):
        parts = module.name.split(".")
        if parts[1] not in _NOT_PASSES and not parts[1].startswith("_"):
            importlib.import_module(module.name)
    for plugin in metadata.entry_points(group=PLUGINS):
        try:
            plugin.load()
        except Exception as error:  # whatever somebody else's module does on import
            raise PipelineError(
                f"the passes of '{plugin.name}' ({plugin.value}) cannot be loaded: {error}",
                hint="repair or uninstall that package",
            ) from error
    return True


def passes() -> dict[str, type[Pass]]:
    """Every registered pass, by name."""
    _load()
    return REGISTRY


@dataclass(frozen=True)
class Recipe:
    """One row of recipes.toml: a pipeline text whose `$option` words may be set by the caller."""

    name: str
    paper: str
    pipeline: str
    domains: tuple[str, ...]
    why: str
    options: dict[str, str]

    def text(self, values: dict[str, str] | None = None) -> str:
        """The pipeline's text with the options filled in."""
        values = values or {}
        for key in values:
            if key not in self.options:
                raise PipelineError(
                    f"recipe '{self.name}' has no option '{key}'",
                    hint=f"its options are {', '.join(self.options) or 'none'}",
                )
        text = self.pipeline
        for key, default in sorted(self.options.items(), key=lambda kv: -len(kv[0])):
            text = text.replace(f"${key}", values.get(key, default))
        return text

    def steps(self, values: dict[str, str]) -> tuple[Pass, ...]:
        """The passes, ready to run."""
        return self.read(values).steps

    def read(self, values: dict[str, str] | None = None) -> Pipeline:
        from .pipeline import Pipeline

        return Pipeline.parse(self.text(values))


@lru_cache(maxsize=1)
def recipes() -> dict[str, Recipe]:
    """Every recipe, by name, in the order of the file."""
    text = resources.files("passes").joinpath("recipes.toml").read_text("utf-8")
    rows = tomllib.loads(text)
    return {
        name: Recipe(
            name, row["paper"], " ".join(row["pipeline"].split()), tuple(row["domains"]),
            row["why"], {k: str(v) for k, v in row.get("options", {}).items()},
        )
        for name, row in rows.items()
    }  # fmt: skip
