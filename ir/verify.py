"""Stages of a graph."""

from __future__ import annotations

from enum import Enum

from . import ops
from .graph import Graph


class Stage(Enum):
    """How far a graph is lowered."""

    FLOAT = "no ops of ours"
    CODED = "values and weights carry codes: Encode and Decode are present"
    INTEGER = "every value is an integer"


def stage_of(graph: Graph) -> Stage:
    """The stage found from the ops that are there."""
    return Stage.CODED if any(ops.is_op(n) for n in graph.graph.all_nodes()) else Stage.FLOAT


def verify(graph: Graph, stage: Stage | None = None) -> None:
    """Check a graph against its stage's grammar."""
