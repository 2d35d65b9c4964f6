"""Take the mean out of what LayerNormalization reads: RMSNormalization does in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ir.analysis.rotations import centred_streams
from ir.edit import Edit
from ir.fold.matrix import centring, fold_maps
from ir.fold.online import online_refusal, subtract_mean
from ir.graph import Graph, Node, array, attribute
from passes.core import Ctx, Effect, Pass, register


@register
@dataclass(frozen=True)
class Center(Pass):
    """Subtract the mean in the weights that write a stream, and leave only RMSNormalization.

    rewrite:  x = Gather(E, ids) + (h @ W + b);         y = LayerNormalization(x, gain, bias)
              -->
              x = Gather(E C, ids) + (h @ (W C) + b C); y = RMSNormalization(x, gain) + bias
    shapes:   C = I - 1/D, [D, D], takes the mean of D channels away; E [V, D], W [K, D], b [D]
    options:  online: of so many values a stream may subtract the mean in the graph, where it comes
              in from what is no weight
    error:    exact but for rounding; computed in float64, cast once
    raises:   nothing; skips streams that anything else than LayerNormalization reads, or something
              else than constants writes, with the reason
    source:   SliceGPT, arXiv:2401.15024, section 3.1 (from LayerNorm to RMSNorm)
    """

    name: ClassVar[str] = "center"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    online: int = 0

    def run(self, graph: Graph, ctx: Ctx) -> None:
        found = []
        for stream in centred_streams(graph):
            moments = [norm for norm in stream.norms if _moments_read(norm)]
            away = [edge.reason for edge in stream.exits]
            reason = "its mean is read, too" if moments else "".join(away[:1])
            reason = reason or online_refusal(stream, self.online)
            if reason:
                ctx.skip(stream.value, reason)
                continue
            subtract_mean(stream, ctx.edit)
            found.append((stream, centring()))
        fold_maps(found, ctx.edit, "centred")
        for stream, _ in found:
            for norm in stream.norms:
                root_mean_square(norm, ctx.edit)
                ctx.did(norm)


def _moments_read(norm: Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in norm.outputs[1:])


def root_mean_square(norm: Node, edit: Edit) -> None:
    """RMSNormalization, and an Add for the bias, in place of a LayerNormalization of mean 0."""
    kept = {k: attribute(norm, k) for k in ("axis", "epsilon", "stash_type")}
    output, name = norm.outputs[0], str(norm.outputs[0].name)
    bias = norm.inputs[2] if len(norm.inputs) > 2 else None
    numbers = array(bias)
    made = edit.node("RMSNormalization", norm.inputs[:2], like=name, before=norm, **kept)
    if bias is not None and (numbers is None or numbers.any()):
        made.outputs[0].type, made.outputs[0].shape = output.type, output.shape
        made = edit.node("Add", [made.outputs[0], bias], like=name, before=norm)
    edit.replace(output, made.outputs[0])
    old = [norm.inputs[2]] if len(norm.inputs) > 2 else []
    edit.remove(norm)
    for value in old:
        if value is not None and value.is_initializer():
            edit.drop_constant(value)
