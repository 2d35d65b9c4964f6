"""Take the mean shift that rounded weights cause out of the bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import formats, ops
from ir.graph import Graph, Node, array, attribute, rank
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, Stat, register
from passes.sites import Linear, bias_of, linear, linears


def mean_shift(error: np.ndarray, mean: np.ndarray, site: Linear) -> np.ndarray:
    """E[x (W' - W)] per output channel: error = W' - W in its layout, mean[K] of the inputs -> [N].

    A Conv's kernel is summed over its window (padding is ignored); group g reads its own channels.
    """
    if site.node.op_type == "Conv":
        window = error.sum(axis=tuple(range(2, error.ndim)))  # [N, C/g]
        groups = attribute(site.node, "group", 1)
        means = mean.reshape(groups, -1).repeat(error.shape[0] // groups, axis=0)
        return (window * means).sum(axis=1)
    return mean @ np.moveaxis(error, (site.inputs[0], site.output), (0, 1))


@register
@dataclass(frozen=True)
class CorrectBias(Pass):
    """b' = b - E[x] (W' - W), with the means of the float model's inputs.

    rewrite:  y = x @ Decode(wq) + b --> y = x @ Decode(wq) + b'
    shapes:   b f32[N]; means f32[K]
    options:  none
    error:    the mean of every output channel is restored, as far as x's mean stays what it was
    raises:   PassError without the float model; skips layers without a constant bias, with a batch
              of matrices, with rounding still to come, or unseen inputs
    source:   DFQ, arXiv:1906.04721, section 4.2 (empirical form)
    """

    name: ClassVar[str] = "correct_bias"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})
    needs: ClassVar[frozenset[Stat]] = frozenset({Stat.MOMENTS})
    optional: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Ctx) -> None:
        originals = {
            node.name: site
            for node in ctx.teacher().graph.all_nodes()
            if (site := linear(node)) is not None
        }
        means = ctx.stats.get(Stat.MOMENTS, {})
        for site in linears(graph):
            decode = site.weight.producer()
            if decode is None or not ops.is_op(decode, "Decode"):
                continue
            original, bias = originals.get(site.node.name), bias_of(site)
            if bias is None:
                ctx.skip(site.node, "it has no constant bias")
            elif site.node.op_type == "MatMul" and rank(site.weight) != 2:
                ctx.skip(site.node, "its weight is a batch of matrices, its bias serves them all")
            elif original is None or original.x.name not in means:
                ctx.skip(site.node, "the mean of its input was not collected")
            elif array(decode.inputs[0]) is None:
                ctx.skip(site.node, "its weight is not rounded yet: put rtn before")
            else:
                mean = np.asarray(means[original.x.name].result().mean)
                self._correct(site, original, decode, bias, mean, ctx)

    def _correct(
        self, site: Linear, original: Linear, decode: Node, bias: tuple[Node, int],
        mean: np.ndarray, ctx: Ctx,
    ) -> None:  # fmt: skip
        codes, scale = array(decode.inputs[0]), array(decode.inputs[1])
        zero = array(decode.inputs[2]) if len(decode.inputs) > 2 else None
        weight, node = array(original.weight), bias[0]
        old = node.inputs[bias[1]]
        present = array(old)
        if codes is None or scale is None or weight is None or present is None or old is None:
            ctx.skip(site.node, "its scale is computed at run time")
            return
        error = formats.decode(codes, scale, zero, ops.qtype_of(decode)) - weight.astype(np.float32)
        shift = mean_shift(error, mean, original)
        fixed = (present.astype(np.float64) - shift.reshape(present.shape)).astype(present.dtype)
        ctx.edit.set_input(node, bias[1], ctx.edit.constant(fixed, f"{old.name}.corrected"))
        ctx.edit.drop_constant(old)
        ctx.did(site.node)
