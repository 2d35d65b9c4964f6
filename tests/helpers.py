"""A small target, and models, graphs and passes that several tests need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch

import ir
from backends.base import Target, Verdict
from ir.graph import Graph, Node
from ir.qtype import QType
from models.tiny import attention, conv, llama, mlp
from passes.core import Ctx, Effect, Pass
from passes.run import Result, run


class Small(Target):
    """Kernels like those of ONNX Runtime, few enough to see through."""

    name: ClassVar[str] = "small"

    def supports(self, node: Node, activation: QType | None, weight: QType | None) -> Verdict:
        if node.op_type in ("MatMul", "Gemm") and weight is not None:
            limit = "pairs" if activation is not None and weight.element == "i8" else ""
            return Verdict(True, "MatMulInteger", limit=limit, float_output=True)
        if node.op_type == "Conv" and weight is not None:
            return Verdict(True, "QLinearConv", float_output=activation is None)
        if node.op_type in ("Add", "MaxPool", "Concat") and weight is None and activation:
            return Verdict(True, f"QLinear{node.op_type}")
        return Verdict(False, reason=f"no integer kernel for {node.op_type}")

    def build(self, graph: Graph, **options):
        raise NotImplementedError("graphs are only planned for this target, never built")

    def open(self, model, threads: int = 0):
        raise NotImplementedError("graphs are only planned for this target, never run")


SMALL = TARGET = Small()


def apply(graph: Graph | str, pipeline, batches=None, **options) -> Result:
    """`passes.run` for the small target; `batches`: how many to draw, or the data itself."""
    graph = ir.parse(graph) if isinstance(graph, str) else graph
    data = feeds(graph, batches) if isinstance(batches, int) else batches
    return run(graph, pipeline, data=data, target=SMALL, **options)


def feeds(graph: Graph, count: int = 2, size: int = 4) -> list[dict[str, np.ndarray]]:
    """Batches for a graph's inputs: normal floats, zeros and ones; a free dimension is `size`."""
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(count):
        batch = {}
        for value in graph.graph.inputs:
            shape = [dim if isinstance(dim, int) else size for dim in value.shape]
            if value.dtype.is_floating_point():
                batch[value.name] = rng.normal(size=shape).astype(value.dtype.numpy())
            else:
                batch[value.name] = rng.integers(0, 2, shape).astype(value.dtype.numpy())
        batches.append(batch)
    return batches


MLP = """graph g(%x: f32[n,8]) -> %y {
  %w1 : f32[8,16] = const seed:1
  %b1 : f32[16] = const seed:2
  %h  : f32[n,16] = Gemm(%x, %w1, %b1)
  %r  : f32[n,16] = Relu(%h)
  %w2 : f32[16,4] = const seed:3
  %m  : f32[n,4] = MatMul(%r, %w2)
  %b2 : f32[4] = const seed:4
  %y  : f32[n,4] = Add(%m, %b2)
}
"""

CONVS = """graph g(%x: f32[n,3,6,6]) -> %y {
  %w1 : f32[4,3,3,3] = const seed:1
  %b1 : f32[4] = const seed:2
  %c1 : f32[n,4,4,4] = Conv(%x, %w1, %b1)
  %r1 : f32[n,4,4,4] = Relu(%c1)
  %w2 : f32[4,4,1,1] = const seed:3
  %c2 : f32[n,4,4,4] = Conv(%r1, %w2)
  %s  : f32[n,4,4,4] = Add(%c2, %r1)
  %w3 : f32[2,4,1,1] = const seed:5
  %c3 : f32[n,2,4,4] = Conv(%s, %w3)
  %y  : f32[n,2,4,4] = Sigmoid(%c3)
}
"""
"""Two convolutions joined by an Add that lies between integer nodes, and a third behind it."""


@dataclass(frozen=True)
class Break(Pass):
    """Scale one weight: what a broken fold does. Not registered: tests build it themselves."""

    name: ClassVar[str] = "break"
    effect: ClassVar[Effect] = Effect.EXACT

    weight: str = "w1"
    by: float = 1.5

    def run(self, graph: Graph, ctx: Ctx) -> None:
        value = graph.graph.initializers[self.weight]
        numbers = value.const_value.numpy() * np.float32(self.by)
        new = ctx.edit.constant(numbers.astype(value.dtype.numpy()), f"{self.weight}.broken")
        for use in list(value.uses()):
            ctx.edit.set_input(use.node, use.idx, new)
            ctx.did(use.node)


@dataclass(frozen=True)
class BreakQuietly(Break):
    """The same, told as a step that may change outputs."""

    name: ClassVar[str] = "break_quietly"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[ir.Stage]] = frozenset({ir.Stage.FLOAT, ir.Stage.CODED})


TINY: dict[str, ModuleType] = {"mlp": mlp, "conv": conv, "attention": attention, "llama": llama}


@cache
def tiny_graph(name: str) -> ir.Graph:
    """A tiny model as a graph whose free dimensions are free; shared, so never write into it."""
    model = TINY[name]
    dynamic = {
        key: dict.fromkeys(axes, torch.export.Dim.AUTO) for key, axes in model.DYNAMIC.items()
    }
    return ir.capture(model.load(), model.example(), dynamic=dynamic)
