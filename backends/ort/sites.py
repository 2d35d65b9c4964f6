"""What the lowering decided for each node that has codes: the record that the check goes by."""

from __future__ import annotations

from dataclasses import dataclass

CONTRIB = "com.microsoft"
LOADED = "decoded when loading"
"""The kernel of a stored weight that a float op reads."""
LOOKUP = "Gather of codes"
"""The kernel of a coded table: rows are looked up as codes and decoded after."""


@dataclass(frozen=True)
class Site:
    """A node with codes: the kernel it became, or why none ("" is float)."""

    node: str
    op: str
    kernel: str
    weight: str = ""
    """Name of the codes that the kernel reads (of the values', for a function body): by it the
    check finds the kernel again."""
    reason: str = ""


class Refused(Exception):
    """No integer kernel runs this node: why not. The lowering catches it; a user never sees it."""
