"""Let similar input channels of a layer share one, so that a widened input has its width again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir

from ir.edit import Edit
from ir.fold.tensors import exchange
from ir.graph import Graph, Node, Value, array
from passes.core import Ctx, Effect, Pass, Stat, register

from .diagonal import Site, sites
from .similar import apart, matched, scores
from .split_channels import SPLIT, widened


@register
@dataclass(frozen=True)
class MergeChannels(Pass):
    """Put the mean of two similar input channels in the place of both, and add their weights.

    rewrite:  y = x @ w
              -->
              m = (Gather(x, a) + Gather(x, b)) * 0.5
              y = Concat(Gather(x, rest), m) @ [w[rest]; w[a] + w[b]]
    shapes:   x [T, K], w [K, N] (Gemm with transB: [N, K]); a, b [M]: M disjoint pairs; [K - M]
              inputs are left
    options:  share of a layer's inputs that are merged, beyond as many as split_channels added
    error:    |(x_a - x_b) / 2|^2 |w_a - w_b|^2 for each pair; none where either is equal
    raises:   nothing; skips inputs of which nothing is to be merged, or whose second moments were
              not collected, with the reason
    source:   QLLM, arXiv:2310.08041, section 4.1 (channel assembly: the paper's score, every
              other channel with one of those between); a channel is merged with one other at most
    """

    name: ClassVar[str] = "merge_channels"
    effect: ClassVar[Effect] = Effect.LOSSY
    needs: ClassVar[frozenset[Stat]] = frozenset({Stat.GRAM})
    optional: ClassVar[bool] = True

    share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise ValueError("share must lie in [0, 0.5)")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        grams = ctx.stats.get(Stat.GRAM, {})
        for site in sites(graph):
            weight = site.weight()
            count, fixed = self._wanted(site, len(weight))
            gram = grams.get(str(site.x.name))
            if not count:
                ctx.skip(site.x, "it was not widened")
            elif gram is None:
                ctx.skip(site.x, "its second moments were not collected")
            else:
                result = gram.result()
                costs = scores(result.gram / max(result.rows, 1), weight)
                pairs = matched(costs, count, fixed)
                if not len(pairs):
                    ctx.skip(site.x, "all its channels are parts of split ones")
                    continue
                rest = np.setdiff1d(np.arange(len(weight)), pairs)
                rest = rest[apart(fixed[rest], np.abs(weight[rest]).max(axis=1))]
                _merge(site, pairs, rest, ctx.edit)
                ctx.did(site.x)
                if len(pairs) < count:
                    ctx.note(f"%{site.x.name}: only {len(pairs)} of {count} pairs are free")

    def _wanted(self, site: Site, width: int) -> tuple[int, np.ndarray]:
        """How many pairs to merge, and which channels (bool [K]) are parts of a split one."""
        fixed = np.zeros(width, bool)
        notes = {layer.node.metadata_props.get(SPLIT, "") for layer in site.layers}
        before = width
        if notes != {""} and len(notes) == 1:
            before, *places = map(int, notes.pop().split())
            fixed[places] = True
        return width - before + int(self.share * before), fixed


def _merge(site: Site, pairs: np.ndarray, rest: np.ndarray, edit: Edit) -> None:
    x = site.x
    right = _take(x, pairs[:, 1], "right", edit)  # each is put before the one made earlier
    left = _take(x, pairs[:, 0], "left", edit)
    kept = _take(x, rest, "kept", edit)
    kind = np.float32 if x.dtype is None else x.dtype.numpy()
    half = edit.constant(np.array(0.5, kind), f"{x.name}.half")
    name = str(x.name)
    both = edit.node("Add", [left.outputs[0], right.outputs[0]], like=f"{name}.both", after=right)
    mean = edit.node("Mul", [both.outputs[0], half], like=f"{name}.mean", after=both)
    made = edit.node("Concat", [kept.outputs[0], mean.outputs[0]], like=f"{name}.merged",
                     after=mean, axis=-1)  # fmt: skip
    for node, size in ((both, len(pairs)), (mean, len(pairs)), (made, len(rest) + len(pairs))):
        _like(node.outputs[0], x, size)
    for layer in site.layers:
        old = layer.node.inputs[1]
        numbers = array(old)
        assert old is not None
        assert numbers is not None
        rows = np.moveaxis(numbers, layer.inputs[0], 0)
        summed = rows[pairs[:, 0]].astype(np.float64) + rows[pairs[:, 1]]
        fewer = np.moveaxis(np.concatenate([rows[rest], summed]), 0, layer.inputs[0])
        edit.set_input(layer.node, 0, made.outputs[0])
        exchange(layer.node, 1, fewer, f"{old.name}.merged", edit)
        edit.note(layer.node, {SPLIT: ""})


def _take(x: Value, places: np.ndarray, name: str, edit: Edit) -> Node:
    held = edit.constant(places, f"{x.name}.{name}_places")
    node = edit.node("Gather", [x, held], like=f"{x.name}.{name}", axis=-1, behind=x)
    _like(node.outputs[0], x, len(places))
    return node


def _like(value: onnx_ir.Value, x: Value, width: int) -> None:
    value.type, value.shape = x.type, widened(x, width)
