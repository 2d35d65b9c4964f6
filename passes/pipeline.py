"""Pipeline: an immutable tuple of passes, its text form, and the order check before any work.

    collect{histogram} | place{w=i8@0x1*f32,a=u8@0*f32+u8} | rtn

Options are the pass's dataclass fields; a lone value fills the first one. Tuples are `[a b c]`,
nothing is `none`, and text with spaces or punctuation is put in quotes: `'it''s'`.
`str(pipeline)` parses back to an equal pipeline.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum

from ir.errors import PipelineError
from ir.verify import Stage

from . import registry
from .core import Pass, Stat

_STEP = re.compile(r"\s*(?P<name>[a-zA-Z_][\w.]*)\s*(?:\{(?P<options>(?:[^{}']|'[^']*')*)\})?\s*")


@dataclass(frozen=True, init=False)
class Pipeline:
    """Passes in order. `Pipeline(a, b) + Pipeline(c)`; `.replace("gptq", Rtn())`;
    `.without("clip")`."""

    steps: tuple[Pass, ...]

    def __init__(self, *steps: Pass) -> None:
        object.__setattr__(self, "steps", tuple(steps))

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline(*self.steps, *other.steps)

    def __str__(self) -> str:
        return " | ".join(str(step) for step in self.steps)

    def replace(self, name: str, *new: Pass) -> Pipeline:
        """The same pipeline with every step called `name` exchanged for `new`."""
        if not any(step.name == name for step in self.steps):
            raise PipelineError(
                f"no step '{name}' to replace in '{self}'", hint="name one of its steps"
            )
        steps = [p for step in self.steps for p in (new if step.name == name else (step,))]
        return Pipeline(*steps)

    def without(self, name: str) -> Pipeline:
        """The same pipeline without the steps called `name`."""
        return self.replace(name)

    @staticmethod
    def parse(text: str) -> Pipeline:
        """Read the text form; recipe names (passes/recipes.toml) stand for their pipelines."""
        steps: list[Pass] = []
        for number, part in enumerate(split(text, "|"), 1):
            found = _STEP.fullmatch(part)
            if found is None:
                raise PipelineError(
                    f"step {number}: cannot read '{part.strip()}'",
                    hint="write name or name{option=value,...}, steps separated by |",
                )
            steps.extend(_steps(found["name"], found["options"] or ""))
        return Pipeline(*steps)


def split(text: str, mark: str) -> list[str]:
    """Cut at `mark`, but not inside {}, [] or quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for i, c in enumerate(text):
        quoted ^= c == "'"
        if quoted:
            continue
        depth += (c in "{[") - (c in "}]")
        if c == mark and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _steps(name: str, options: str) -> tuple[Pass, ...]:
    recipes = registry.recipes()
    if name in recipes:
        return recipes[name].steps(dict(_pairs(options, name)))
    cls = registry.passes().get(name)
    if cls is None:
        known = [*registry.passes(), *recipes]
        near = difflib.get_close_matches(name, known, 3) or sorted(known)
        raise PipelineError(
            f"no pass or recipe is called '{name}'", hint=f"did you mean {', '.join(near)}?"
        )
    return (build(cls, options),)


def _pairs(options: str, name: str) -> Iterator[tuple[str, str]]:
    for part in split(options, ",") if options.strip() else []:
        key, found, value = part.partition("=")
        if not found:
            raise PipelineError(
                f"option '{part.strip()}' of '{name}' has no value", hint="write key=value"
            )
        yield key.strip(), value.strip()


def build(cls: type[Pass], options: str) -> Pass:
    """A pass from the text of its options, each checked against the type of its field."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, object] = {}
    for i, part in enumerate(split(options, ",") if options.strip() else []):
        key, found, value = (piece.strip() for piece in part.partition("="))
        if not found or (key not in known and i == 0 and known and not key.isidentifier()):
            if i > 0 or not known:
                raise PipelineError(
                    f"option '{part.strip()}' of '{cls.name}' has no value", hint="write key=value"
                )
            key, value = next(iter(known)), part.strip()
        if key not in known:
            raise PipelineError(
                f"'{cls.name}' has no option '{key}'",
                hint=f"its options are {', '.join(known)}" if known else "it has no options",
            )
        if key in values:
            raise PipelineError(
                f"option '{key}' of '{cls.name}' is given twice", hint="leave one of them out"
            )
        values[key] = read(value, hints[key], f"{cls.name}.{key}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise PipelineError(
            f"'{cls.name}{{{options}}}': {error}",
            hint=f"`ptqc explain {cls.name}` lists its options",
        ) from error


def read(text: str, kind: object, what: str) -> object:
    """`text` as a value of the annotated type `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text in ("none", "None") and type(None) in arguments:
            return None
        return read(text, next(a for a in arguments if a is not type(None)), what)
    if origin is tuple:
        inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return tuple(read(part, arguments[0], what) for part in split(inner.strip(), " ") if part)
    if text.startswith("'") and text.endswith("'") and len(text) > 1:
        text = text[1:-1].replace("''", "'")
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if isinstance(kind, type) and issubclass(kind, Enum):
            return kind(text)
        if kind in (int, float, str):
            return kind(text)  # type: ignore[operator]
        return kind.parse(text)  # type: ignore[union-attr]
    except (KeyError, ValueError) as error:
        choices = (
            [m.value for m in kind] if isinstance(kind, type) and issubclass(kind, Enum) else None
        )
        wanted = f"one of {', '.join(choices)}" if choices else getattr(kind, "__name__", str(kind))
        raise PipelineError(f"{what}: '{text}' is not valid", hint=f"expected {wanted}") from error


def check_order(
    pipeline: Pipeline, stage: Stage, *, has_data: bool, fresh: set[Stat] | None = None
) -> None:
    """Everything that can be known before work: stages in sequence, statistics there and fresh."""
    fresh = set(fresh or ())
    dropped: dict[Stat, str] = {}
    for number, step in enumerate(pipeline, 1):
        at = f"step {number} '{step.name}'"
        if stage not in step.takes:
            wanted = " or ".join(sorted(s.name for s in step.takes))
            raise PipelineError(
                f"{at} takes {wanted}, but "
                + (
                    f"step {number - 1} leaves {stage.name}"
                    if number > 1
                    else f"the graph is {stage.name}"
                ),
                hint="move it before the step that codes the graph, or start from the float model",
            )
        for stat in sorted(step.required() - fresh, key=lambda s: s.value):
            raise _missing(at, stat.value, dropped.get(stat), number)
        if step.needs_one_of and not step.needs_one_of & fresh:
            names = sorted(s.value for s in step.needs_one_of)
            raise _missing(at, " or ".join(names), None, number)
        if step.gives() and not has_data:
            raise PipelineError(
                f"{at} needs calibration data and there is none",
                hint="pass data=... (--calib DATA)",
            )
        for stat in step.spoils & fresh:
            dropped[stat] = f"step {number} '{step.name}'"
        fresh = (fresh - step.spoils) | step.gives()
        stage = step.makes or stage


def _missing(at: str, stat: str, dropped: str | None, number: int) -> PipelineError:
    why = f", dropped by {dropped}" if dropped else ""
    first = stat.split(" or ")[0]
    return PipelineError(
        f"{at} needs '{stat}'{why}", hint=f"put collect{{{first}}} before step {number}"
    )
