"""The syntax tree between parser and builder; `at` is the offset in the text, for errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx_ir


class Type(NamedTuple):
    at: int
    kind: onnx_ir.TypeProtocol | None
    shape: tuple[int | str | None, ...] | None
    qtype: str | None


class Name(NamedTuple):
    """A value as it is written: `text` None where it is absent, `type` where one is declared."""

    at: int
    text: str | None
    type: Type | None


class Op(NamedTuple):
    at: int
    domain: str
    op_type: str
    overload: str | None


class Attribute(NamedTuple):
    """`kind` None: a function's attribute without a default."""

    at: int
    name: str
    kind: onnx_ir.AttributeType | None
    value: Any
    ref: bool = False


@dataclass(slots=True)
class Literal:
    at: int
    name: str | None = None
    type: Type | None = None
    kind: str = ""
    payload: Any = None


@dataclass(slots=True)
class Statement:
    at: int
    outputs: list[Name]
    op: Op | None = None
    inputs: list[Name] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)
    name: str | None = None
    literal: Literal | None = None
    meta: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Body:
    """A graph, or a function when `op` is given."""

    at: int
    name: str | None
    op: Op | None = None
    inputs: list[Name] = field(default_factory=list)
    outputs: list[Name] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    opset: dict[str, int] | None = None
