"""Put Encode and Decode where the target's integer kernels want them, and say why for every
layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.errors import PassError
from ir.formats import integer
from ir.graph import Graph, Node, Value, array
from ir.qtype import QType
from ir.verify import Stage

from .core import Ctx, Effect, Pass, register
from .placement import Plan, plan
from .ranges import collected_range
from .rounding.clip_weights import group_extremes
from .rounding.rtn import LIMIT
from .sites import Linear

FIXED_RANGES = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Relu": (0.0, None)}
"""What an op's definition says of its output's range; None: as collected."""


@register
@dataclass(frozen=True)
class Place(Pass):
    """Insert Encode/Decode at the inputs, weights and (where needed) outputs of integer kernels.

    rewrite:  y = x @ w
              -->
              y = Decode(Encode(x, sx, zx), sx, zx) @ Decode(Encode(w, sw), sw)
    shapes:   w pattern is written for a K x N matrix (K inputs, N outputs) whatever the op's layout
    options:  w, a: QTypes of weights and activations, `none` for float; dynamic: scales of
              activations computed at run time (a Scale node) instead of calibrated; keep: selectors
              of layers that stay float (passes/select.py); carriers: whether Add, Concat and
              pooling between kernels carry codes
    error:    rounding of every coded value; the report gives SQNR per output
    raises:   PassError when a range was not collected; skips, with the target's reason, what it
              cannot run
    source:   placement by kernels; the axes transform x format x rounding x allocation of
              docs/architecture.md
    """

    name: ClassVar[str] = "place"
    effect: ClassVar[Effect] = Effect.LOSSY
    makes: ClassVar[Stage | None] = Stage.CODED

    w: QType | None = None
    a: QType | None = None
    dynamic: bool = False
    keep: tuple[str, ...] = ()
    carriers: bool = True

    def __post_init__(self) -> None:
        if self.w is None:
            raise ValueError("w, the QType of the weights, must be given")
        if self.dynamic and self.a is None:
            raise ValueError("dynamic scales need a, the QType of the activations")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        made = plan(graph, ctx.target, self.a, self.w, self.keep, dynamic=self.dynamic,
                    carriers=self.carriers)  # fmt: skip
        for node, reason in made.refused:
            ctx.skip(node, reason)
        for value in list(made.coded.values()):
            self._code(value, made, ctx)
        done: dict[tuple[int, str], Value] = {}
        for site, verdict in made.kernels.values():
            self._code_weight(site, verdict.limit, done, ctx)
            ctx.did(site.node)
        for site, reason in made.light.values():
            self._code_weight(site, "", done, ctx)
            ctx.skip(site.node, f"only its weight carries codes: {reason}")

    def _code(self, value: Value, made: Plan, ctx: Ctx) -> None:
        """Encode and Decode one value; its integer readers, or all when it is written in codes."""
        assert self.a is not None
        producer = value.producer()
        written = producer is not None and _written(producer, made)
        uses = [(u.node, u.idx) for u in value.uses() if written or made.reads_codes(u.node)]
        if not uses:
            return
        where = _where(value, producer)
        parts = self._scale(value, producer, where, ctx)
        maker = parts[0].producer()
        encode = ctx.edit.quant("Encode", self.a, [value, *parts], like=value.name or "x",
                                **({"after": maker} if maker is not None else where))  # fmt: skip
        decode = ctx.edit.quant(
            "Decode", self.a, [encode.outputs[0], *parts], like=value.name or "x", after=encode
        )
        for node, index in uses:
            ctx.edit.set_input(node, index, decode.outputs[0])
        ctx.note(f"%{value.name}: {made.why[id(value)]}")

    def _scale(
        self, value: Value, producer: Node | None, where: dict[str, Node], ctx: Ctx
    ) -> list[Value]:
        assert self.a is not None
        if self.dynamic:
            return list(
                ctx.edit.quant("Scale", self.a, [value], like=value.name or "x", **where).outputs
            )
        low, high = collected_range(ctx, value.name or "")
        fixed = FIXED_RANGES.get(producer.op_type if producer is not None else "")
        if fixed is not None:
            low, high = (
                (low if fixed[0] is None else fixed[0]),
                (high if fixed[1] is None else fixed[1]),
            )
        scale, zero = integer.scale_and_zero(low, high, self.a)
        parts = [ctx.edit.constant(np.asarray(scale), f"{value.name}.scale")]
        if zero is not None:
            parts.append(ctx.edit.constant(np.asarray(zero), f"{value.name}.zero"))
        return parts

    def _code_weight(
        self, site: Linear, limit: str, done: dict[tuple[int, str], Value], ctx: Ctx
    ) -> None:
        assert self.w is not None
        qtype, weight = site.qtype(self.w), site.weight
        # Other graphs do not see a Decode inside a body: each reader's graph gets its own.
        key = (id(weight), f"{qtype} {limit} {id(site.node.graph)}")
        if key not in done:
            numbers = array(weight)
            if numbers is None or not np.isfinite(numbers).all():
                raise PassError("a weight is not finite", at=weight, hint="repair the model first")
            scale, zero = integer.scale_and_zero(*group_extremes(numbers, qtype), qtype)
            parts = [ctx.edit.constant(np.asarray(scale), f"{weight.name}.scale")]
            if zero is not None:
                parts.append(ctx.edit.constant(np.asarray(zero), f"{weight.name}.zero"))
            encode = ctx.edit.quant("Encode", qtype, [weight, *parts], like=weight.name or "w",
                                    before=site.node)  # fmt: skip
            decode = ctx.edit.quant("Decode", qtype, [encode.outputs[0], *parts],
                                    like=weight.name or "w", after=encode)  # fmt: skip
            if limit:
                ctx.edit.note(encode, {LIMIT: limit})
            done[key] = decode.outputs[0]
        ctx.edit.set_input(site.node, 1, done[key])


def _written(producer: Node, made: Plan) -> bool:
    """Whether a value leaves its producer (through an absorbed activation) as codes."""
    if id(producer) in made.integer:
        return True
    before = producer.inputs[0].producer() if producer.inputs and producer.inputs[0] else None
    return (
        producer.op_type in ("Relu", "Clip") and before is not None and id(before) in made.integer
    )


def _where(value: Value, producer: Node | None) -> dict[str, Node]:
    """Behind what computes the value; at the front of the graph or body whose input it is."""
    if producer is not None:
        return {"after": producer}
    return {"before": value.graph[0]} if value.graph is not None else {}  # type: ignore[dict-item]
