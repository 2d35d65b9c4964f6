"""Put Encode and Decode where the target's integer kernels want them, and say why for every
layer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from backends.base import BODY, BODY_MARK, Verdict
from ir import formats
from ir.edit import Edit
from ir.errors import PassError, describe
from ir.graph import Graph, Node, Value, array, clone, rank
from ir.qtype import QType
from ir.verify import Stage

from .core import Ctx, Effect, Pass, register
from .placement import Plan, plan
from .ranges import collected_range, reached
from .rounding.clip_weights import group_extremes
from .rounding.rtn import LIMIT
from .sites import SOUGHT, WRITTEN, Linear

TIE = 0.97
"""A placement with carriers must be this much faster to be kept."""
FIXED_RANGES = {"Softmax": (0.0, 1.0), "Sigmoid": (0.0, 1.0), "Relu": (0.0, None)}
"""What an op's definition says of its output's range; None: as collected."""


@register
@dataclass(frozen=True)
class Place(Pass):
    """Insert Encode/Decode at the inputs, weights and (where needed) outputs of integer kernels.

    rewrite:  y = x @ w
              -->
              y = Decode(Encode(x, sx, zx), sx, zx) @ Decode(Encode(w, sw), sw)
    shapes:   w is written for a K x N matrix (K inputs, N outputs) whatever the op's layout; a for
              the whole tensor (@0) or for T x K (T tokens: @1x0 gives each its scale) at any rank
    options:  w, a: QTypes of weights and activations, `none` for float; dynamic: scales of
              activations computed at run time (a Scale node) instead of calibrated; keep: selectors
              of layers that stay float (passes/select.py); carriers: whether Add, Concat and
              pooling between kernels carry codes; measure: time the placement with and without
              carriers on the target (first batch of the data) and keep the faster one;
              portable: layers without a kernel are coded as well and run through the functions'
              bodies: rounded as told, computed in float, not faster
    error:    rounding of every coded value; the report gives SQNR per output
    raises:   PassError when a range was not collected; skips, with the target's reason, what it
              cannot run
    source:   placement by kernels; the axes transform x format x rounding x allocation of
              docs/architecture.md
    """

    name: ClassVar[str] = "place"
    effect: ClassVar[Effect] = Effect.LOSSY
    makes: ClassVar[Stage | None] = Stage.CODED
    sought: ClassVar[str] = SOUGHT

    w: QType | None = None
    a: QType | None = None
    dynamic: bool = False
    keep: tuple[str, ...] = ()
    carriers: bool = True
    measure: bool = False
    portable: bool = False

    def __post_init__(self) -> None:
        if self.w is None:
            raise ValueError("w, the QType of the weights, must be given")
        if self.dynamic and self.a is None:
            raise ValueError("dynamic scales need a, the QType of the activations")
        if self.a is not None and self.a.block == (1, 0) and not self.dynamic:
            raise ValueError("scales of single tokens exist at run time only: set dynamic=true")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        if self.measure:
            carriers = self._faster(graph, ctx)
            dataclasses.replace(self, measure=False, carriers=carriers).run(graph, ctx)
            return
        made = plan(
            graph, ctx.target, self.a, self.w, self.keep, dynamic=self.dynamic,
            carriers=self.carriers, portable=self.portable, reached=reached(ctx),
        )  # fmt: skip
        for node, reason in made.refused:
            ctx.skip(node, reason)
        for value in list(made.coded.values()):
            self._code(value, made, ctx)
        weights = [(site, self._limit(verdict)) for site, verdict in made.kernels.values()]
        weights += [(site, "") for site, _ in made.light.values()]
        self._code_weights(weights, ctx)
        for site, verdict in made.kernels.values():
            if verdict.kernel == BODY:
                ctx.edit.note(site.node, {BODY_MARK: verdict.reason})
            ctx.did(site.node)
        bodies = sum(verdict.kernel == BODY for _, verdict in made.kernels.values())
        if bodies:
            ctx.note(f"{bodies} layers run through function bodies: not faster than in float")
        for site, reason in made.light.values():
            if reason and made.kernels:
                ctx.skip(site.node, f"only its weight carries codes: {reason}")
                continue
            if reason:
                ctx.note(f"{describe(site.node)}: only its weight carries codes: {reason}")
            ctx.did(site.node)

    def _faster(self, graph: Graph, ctx: Ctx) -> bool:
        """Whether carriers pay on the target. Without them less is rounded: a tie goes to that."""
        feeds = next(iter(ctx.data or ()), None)
        if feeds is None:
            raise PassError("there is no batch to measure on", hint="pass data=... (--calib)")
        tried = []
        for carriers in (True, False):
            copy = clone(graph)
            trial = dataclasses.replace(ctx, edit=Edit(copy), sites=[], skips=[], notes=[])
            dataclasses.replace(self, measure=False, carriers=carriers).run(copy, trial)
            trial.edit.finish()
            tried.append(copy)
        taken, left = ctx.target.seconds(tried, feeds)
        ctx.note(f"measured: {taken * 1e3:.2f} ms with carriers, {left * 1e3:.2f} ms without")
        return taken < TIE * left

    def _code(self, value: Value, made: Plan, ctx: Ctx) -> None:
        """Encode and Decode one value; its integer readers, or all when it is written in codes."""
        assert self.a is not None
        producer = value.producer()
        written = producer is not None and _written(producer, made)
        uses = [(u.node, u.idx) for u in value.uses() if written or made.reads_codes(u.node)]
        if not uses:
            return
        parts = self._scale(value, producer, ctx)
        name = value.name or "x"
        qtype = at_rank(self.a, value)
        last = value if parts[0].producer() is None else parts[0]  # of a Scale, if there is one
        encode = ctx.edit.quant("Encode", qtype, [value, *parts], like=name, behind=last)
        decode = ctx.edit.quant(
            "Decode", qtype, [encode.outputs[0], *parts], like=name, after=encode
        )
        if written:
            ctx.edit.note(encode, {WRITTEN: "codes"})
        decodes = {encode.graph: decode.outputs[0]}
        for node, index in uses:
            if node.graph not in decodes:  # a body: its kernel wants the Decode beside it
                inner = ctx.edit.quant("Decode", qtype, [encode.outputs[0], *parts], like=name,
                                       before=node.graph[0])  # type: ignore[index]  # fmt: skip
                decodes[node.graph] = inner.outputs[0]
            ctx.edit.set_input(node, index, decodes[node.graph])
        if written and value.is_graph_output():
            ctx.edit.output_instead(value, decode.outputs[0])
        ctx.note(f"%{name}: {made.why[id(value)]}")

    def _scale(self, value: Value, producer: Node | None, ctx: Ctx) -> list[Value]:
        assert self.a is not None
        if self.dynamic:
            name = value.name or "x"
            qtype = at_rank(self.a, value)
            return list(ctx.edit.quant("Scale", qtype, [value], like=name, behind=value).outputs)
        low, high = collected_range(ctx, value.name or "")
        fixed = FIXED_RANGES.get(producer.op_type if producer is not None else "")
        if fixed is not None:
            low, high = (
                (low if fixed[0] is None else fixed[0]),
                (high if fixed[1] is None else fixed[1]),
            )
        scale, zero = formats.scale_and_zero(low, high, self.a)
        parts = [ctx.edit.constant(np.asarray(scale), f"{value.name}.scale")]
        if zero is not None:
            parts.append(ctx.edit.constant(np.asarray(zero), f"{value.name}.zero"))
        return parts

    def _limit(self, verdict: Verdict) -> str:
        """The kernel's rule on the codes, where it multiplies codes."""
        return verdict.limit if self.a is not None else ""

    def _code_weights(self, sites: list[tuple[Linear, str]], ctx: Ctx) -> None:
        """One Encode for every weight, type and rule; one Decode for it in every graph that
        reads."""
        assert self.w is not None
        shared: dict[tuple[int, str], list[Linear]] = {}
        for site, limit in sites:
            key = (id(site.weight), f"{site.qtype(self.w)} {limit}")
            shared.setdefault(key, []).append(site)
        for (_, text), group in shared.items():
            self._code_weight(group, text.partition(" ")[2], ctx)

    def _code_weight(self, sites: list[Linear], limit: str, ctx: Ctx) -> None:
        assert self.w is not None
        qtype, weight = sites[0].qtype(self.w), sites[0].weight
        name = weight.name or "w"
        numbers = array(weight)
        if numbers is None or not np.isfinite(numbers).all():
            raise PassError("a weight is not finite", at=weight, hint="repair the model first")
        scale, zero = formats.scale_and_zero(*group_extremes(numbers, qtype), qtype)
        parts = [ctx.edit.constant(np.asarray(scale), f"{name}.scale")]
        if zero is not None:
            parts.append(ctx.edit.constant(np.asarray(zero), f"{name}.zero"))
        readers: dict[onnx_ir.Graph, Node] = {}
        for site in sites:
            graph = site.node.graph
            assert isinstance(graph, onnx_ir.Graph)
            readers[graph] = _earlier(readers.get(graph), site.node)
        alone = next(iter(readers.values())) if len(readers) == 1 else None
        front = alone or weight.graph[0]  # type: ignore[index]
        encode = ctx.edit.quant("Encode", qtype, [weight, *parts], like=name, before=front)
        if limit:
            ctx.edit.note(encode, {LIMIT: limit})
        decodes = {
            graph: ctx.edit.quant("Decode", qtype, [encode.outputs[0], *parts], like=name,
                                  before=first)
            for graph, first in readers.items()
        }  # fmt: skip
        for site in sites:
            place = 0 if site.node.op_type == "Gather" else 1
            ctx.edit.set_input(site.node, place, decodes[site.node.graph].outputs[0])  # type: ignore[index]


def at_rank(pattern: QType, value: Value) -> QType:
    """`pattern`, written for a T x K matrix, at the rank of a value: T is all axes but the last."""
    if pattern.per_tensor:
        return pattern
    if len(pattern.block) != 2:
        raise PassError(
            f"value type {pattern} must be written for the whole tensor or a T x K matrix",
            at=value, hint="u8@0*f32+u8, or i8@1x0*f32 for one scale a token",
        )  # fmt: skip
    axes = rank(value)
    if axes is None or axes < 1:
        raise PassError(
            f"value type {pattern} needs a value of known rank", at=value,
            hint="use one scale for the tensor: a=u8@0*f32+u8",
        )  # fmt: skip
    along, across = pattern.block
    return dataclasses.replace(pattern, block=(*[along] * (axes - 1), across))


def _earlier(first: Node | None, second: Node) -> Node:
    """The one that stands before the other in their graph."""
    if first is None or first is second:
        return second
    for node in first.graph or ():
        if node is first or node is second:
            return node
    raise AssertionError("the nodes are of two graphs")


def _written(producer: Node, made: Plan) -> bool:
    """Whether a value leaves its producer (through an absorbed activation) as codes."""
    if id(producer) in made.integer:
        return True
    before = producer.inputs[0].producer() if producer.inputs and producer.inputs[0] else None
    return (
        producer.op_type in ("Relu", "Clip") and before is not None and id(before) in made.integer
    )
