"""Text -> tokens, and the errors that say where."""

from __future__ import annotations

import json
import re
from typing import NamedTuple, NoReturn

from ir.errors import VerifyError

from . import words

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(
    rf"""(?P<value>%(?:{_STRING}|{words.NAME}))
    |(?P<node>@(?:{_STRING}|{words.NAME}))
    |(?P<string>{_STRING})
    |(?P<number>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf\b|nan\b))
    |(?P<word>{words.WORD})
    |(?P<punct>->|[(){{}}\[\],=:.?])
    |(?P<note>;[ \t]*(?:by[ \t]|\|)[^\n]*)
    |(?P<skip>\s+|[#;][^\n]*)
    |(?P<wrong>.)""",
    re.VERBOSE | re.DOTALL,
)
DEPTH = 40
"""Nesting of bodies and types; more is taken for a damaged text."""


class Token(NamedTuple):
    kind: str
    text: str
    at: int


class Tokens:
    """The tokens of a text, read one after the other."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0
        self._found = _TOKEN.finditer(text)
        self.peek = Token("end", "", 0)
        """The token that `take` gives next."""
        self.take()

    def take(self) -> Token:
        token = self.peek
        for found in self._found:
            kind = found.lastgroup
            if kind != "skip":
                self.peek = Token(kind or "", found[0], found.start())
                return token
        self.peek = Token("end", "the end", len(self.text))
        return token

    def accept(self, text: str) -> bool:
        """Take the next token when it is this mark or word."""
        token = self.peek
        if token.text != text or token.kind not in ("punct", "word"):
            return False
        self.take()
        return True

    def expect(self, text: str) -> Token:
        token = self.peek
        if not self.accept(text):
            self.fail(f"'{text}'", token)
        return token

    def of(self, kind: str, wanted: str) -> Token:
        if self.peek.kind != kind:
            self.fail(wanted, self.peek)
        return self.take()

    def name(self, wanted: str) -> str:
        """A bare word or a quoted text."""
        token = self.take()
        if token.kind == "word":
            return token.text
        if token.kind == "string":
            return self.unquote(token)
        return self.fail(wanted, token)

    def unquote(self, token: Token) -> str:
        """The text of a string token, or of a value or node name."""
        text = token.text
        if token.kind in ("value", "node"):
            text = text[1:]
        if not text.startswith('"'):
            return text
        try:
            return json.loads(text, strict=False)
        except ValueError:
            self.fail("a text quoted as in JSON", token)

    def integer(self, wanted: str) -> int:
        token = self.of("number", wanted)
        number = self.number(token)
        if not isinstance(number, int):
            self.fail(wanted, token)
        return number

    def number(self, token: Token) -> int | float:
        text = token.text
        if text.lstrip("-").isdigit():
            if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
                self.fail("an integer of 64 bits", token)
            return int(text)
        return float(text)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            self.fail(f"at most {DEPTH} levels of nesting", self.peek)

    def fail(self, wanted: str, token: Token | int, hint: str = "") -> NoReturn:
        """Raise VerifyError with line, column and what stood there instead."""
        at = token if isinstance(token, int) else token.at
        line = self.text.count("\n", 0, at) + 1
        column = at - (self.text.rfind("\n", 0, at) + 1) + 1
        found = "" if isinstance(token, int) else f", found {_shown(token)}"
        raise VerifyError(
            f"the graph text is wrong: expected {wanted}{found}",
            at=f"line {line}, column {column}",
            hint=hint or "see ir.text for the form",
        )


def _shown(token: Token) -> str:
    if token.kind == "end":
        return token.text
    return f"'{token.text[:40]}'"
