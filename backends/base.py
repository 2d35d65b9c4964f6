"""What a target is: which integer kernels it really has, and how a graph becomes an artifact there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ir.graph import Graph, Node
from ir.qtype import QType


@dataclass(frozen=True)
class Verdict:
    """Whether a target runs a node on codes, with which kernel, or why not.

    `limit` names a rule that the weight's codes must keep for the kernel to be right
    (`passes/rounding/limits.py`); empty: none. `float_output` says that the kernel needs no codes on its
    output: it writes float itself.
    """

    ok: bool
    kernel: str = ""
    reason: str = ""
    limit: str = ""
    float_output: bool = False


class Target(ABC):
    """A place where graphs run."""

    name: ClassVar[str]

    @abstractmethod
    def supports(self, node: Node, activation: QType | None, weight: QType | None) -> Verdict:
        """Can this node run on codes of these types (None: float)?"""

    @abstractmethod
    def passes_codes(self, node: Node) -> bool:
        """Whether the node only moves values, so that it runs on codes as well as on floats."""

    @abstractmethod
    def build(self, graph: Graph, **options):
        """Lower a graph to an artifact that runs here."""
