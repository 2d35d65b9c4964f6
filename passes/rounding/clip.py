"""Choose better ranges of values than their extremes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import formats, ops
from ir.graph import Graph, Node, constant
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, Stat, register
from passes.ranges import Method, searched_range
from passes.sites import decodes_of


@register
@dataclass(frozen=True)
class Clip(Pass):
    """Shrink the ranges of coded values so that rounding and clipping errors balance.

    rewrite:  Encode(x, s, z) --> Encode(x, s', z'), and the same in its Decodes
    shapes:   s, z unchanged
    options:  method: minmax, percentile, entropy or mse; percent: the share kept by percentile, in
              %
    error:    the one chosen; never a range wider than the data's
    raises:   nothing; skips values without a histogram, with a scale per channel or at run time, or
              whose codes are moved before they are decoded
    source:   card observers; entropy: TensorRT 2017; mse: as in AdaRound, arXiv:2004.10568
    """

    name: ClassVar[str] = "clip"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})
    needs: ClassVar[frozenset[Stat]] = frozenset({Stat.HISTOGRAM})

    method: Method = Method.MSE
    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise ValueError("percent must lie in (50, 100]")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        for encode in [n for n in graph.graph.all_nodes() if ops.is_op(n, "Encode")]:
            source, qtype = encode.inputs[0], ops.qtype_of(encode)
            if constant(source) is not None:
                continue
            if constant(encode.inputs[1]) is None:
                ctx.skip(source, "its scale is computed at run time")
            elif not qtype.per_tensor:
                ctx.skip(source, "its scale is not one number")
            elif decodes_of(encode) is None:
                ctx.skip(source, MOVED)
            elif source is not None and source.name in ctx.stats.get(Stat.HISTOGRAM, {}):
                low, high = searched_range(ctx, source.name, self.method, qtype, self.percent)
                set_scale(encode, *formats.scale_and_zero(low, high, qtype), ctx)
                ctx.did(source)
            else:
                ctx.skip(source, "no histogram was collected for it")


MOVED = "somebody besides Decode reads its codes"


def set_scale(encode: Node, scale: np.ndarray, zero: np.ndarray | None, ctx: Ctx) -> None:
    """Give an Encode and all its Decodes (`decodes_of`) another constant scale (and zero)."""
    source = encode.inputs[0]
    name = source.name if source is not None else "value"
    parts = [ctx.edit.constant(np.asarray(scale), f"{name}.scale")]
    if zero is not None:
        parts.append(ctx.edit.constant(np.asarray(zero), f"{name}.zero"))
    old = [v for v in encode.inputs[1:] if v is not None]
    for node in [encode, *(decodes_of(encode) or [])]:
        for index, part in enumerate(parts, 1):
            ctx.edit.set_input(node, index, part)
    for value in old:
        ctx.edit.drop_constant(value)
