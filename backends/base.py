"""What a target is: the integer kernels it really has, and how a graph becomes an artifact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ir import ops
from ir.errors import BackendError, PipelineError
from ir.graph import Graph, Node
from ir.qtype import QType

BODY = "function body"
"""The kernel of a layer that runs as its codes' functions say: every code is rounded as told, the
layer computes in float, and nothing is faster."""
BODY_MARK = "quant.body"
"""Metadata of a node that is to run so: why the target has no faster kernel."""


@dataclass(frozen=True)
class Verdict:
    """Whether a target runs a node on codes, with which kernel, or why not."""

    ok: bool
    kernel: str = ""
    reason: str = ""
    """Why not (ok is False), in words a user can act on."""
    limit: str = ""
    """A rule that the weight's codes must keep, for the kernel to be right
    (passes/rounding/limits.py)."""
    float_output: bool = False
    """The kernel writes floats itself: it needs no codes on its output."""
    weights: bool = False
    """Not ok on codes, but coding the weight alone still makes the file smaller at little cost."""


class Target(ABC):
    """A place where graphs run."""

    name: ClassVar[str]

    @abstractmethod
    def supports(self, node: Node, activation: QType | None, weight: QType | None) -> Verdict:
        """Can this node run on codes of these types (None: float)?"""

    def body(self, node: Node, activation: QType, weight: QType) -> Verdict:
        """Can the functions' own bodies run this node, for want of a kernel? Slow, but any bits."""
        if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv"):
            return Verdict(False, reason=f"{node.op_type} layers are not coded")
        if node.op_type == "Conv" and not activation.per_tensor:
            return Verdict(False, reason="Conv mixes what has scales of its own: give values one")
        try:
            for op, qtype in (("Scale", activation), ("Encode", activation), ("Encode", weight)):
                ops.function(op, str(qtype))
        except PipelineError as error:
            return Verdict(False, reason=f"{error.cause}; {error.hint}")
        return Verdict(True, BODY, float_output=True)

    @abstractmethod
    def build(self, graph: Graph, **options) -> Any:
        """Lower a graph to an artifact that runs here."""

    @abstractmethod
    def open(self, model: Any, threads: int = 0) -> Any:
        """A session of a built model (a graph or its path): `.run(feeds) -> {output: array}`."""

    def seconds(self, graphs: Sequence[Graph], feeds: Mapping[str, np.ndarray]) -> list[float]:
        """Median CPU seconds of one run of each graph here, on one thread and in turn."""
        raise BackendError(
            f"target '{self.name}' cannot measure", hint="leave the option `measure` out"
        )
