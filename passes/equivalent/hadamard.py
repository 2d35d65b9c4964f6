"""Spread outliers of linear layers' inputs over all channels, while the graph runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import hadamard
from ir.analysis.masks import masked_values
from ir.edit import Edit
from ir.fold.tensors import exchange
from ir.graph import Graph, Node, Value, array, constant, nodes, rank
from passes.core import Ctx, Effect, Pass, register
from passes.select import select
from passes.sites import Linear, linears


@register
@dataclass(frozen=True)
class Hadamard(Pass):
    """Transform the inputs of linear layers by Hadamard matrices, and their weights by the inverse.

    rewrite:  y = x @ w                   s = q @ k
              -->
              y = Hadamard(x) @ (H^T w)   s = (q @ H) @ (k^T @ H)^T, H left in the graph on both
    shapes:   x [T, K], w [K, N] (Gemm with transB: [N, K]), H [K, K]: the Kronecker product of the
              op's factors; q [T, D], k [D, S]
    options:  only: selectors of layers (passes/select.py), all when empty; block: channels that are
              transformed together, a divisor of K (0: all K); signs: multiply x by random +-1
              before (one product more); pairs: instead of layers with weights, products of two
              activations (q and k of an attention)
    error:    exact but for rounding; weights computed in float64, cast once
    raises:   nothing; skips widths without a matrix and layers other than MatMul and Gemm, with the
              reason
    source:   QuaRot, arXiv:2404.00456 (R3: pairs; R4: the input of the last layer of an MLP);
              QuIP#, arXiv:2402.04396; blocks: MR-GPTQ, arXiv:2509.23202
    """

    name: ClassVar[str] = "hadamard"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True
    sought: ClassVar[str] = "MatMul or Gemm of the chosen kind"

    only: tuple[str, ...] = ()
    block: int = 0
    signs: bool = False
    pairs: bool = False

    def run(self, graph: Graph, ctx: Ctx) -> None:
        sites = {id(site.node): site for site in linears(graph)}
        found = _pairs(graph) if self.pairs else [site.node for site in sites.values()]
        if self.only:
            chosen = {key for text in self.only for key in select(text, found)}
            found = [node for node in found if id(node) in chosen]
        if self.pairs:
            self._run_pairs(found, ctx)
        else:
            self._run_layers([sites[id(node)] for node in found], masked_values(graph), ctx)

    def _run_layers(self, sites: list[Linear], masked, ctx: Ctx) -> None:
        made: dict[int, tuple[Value, np.ndarray | None]] = {}
        for site in sites:
            reason = self._refusal(site) or ("it reads a mask" if site.x.name in masked else "")
            if reason:
                ctx.skip(site.node, reason)
                continue
            if id(site.x) not in made:
                made[id(site.x)] = self._online(site, ctx)
            mixed, signs = made[id(site.x)]
            weight = array(site.weight)
            assert weight is not None
            turned = folded(weight.astype(np.float64), site.inputs[0], self.block, signs)
            ctx.edit.set_input(site.node, 0, mixed)
            exchange(site.node, 1, turned, f"{site.weight.name}.mixed", ctx.edit)
            ctx.did(site.node)

    def _refusal(self, site: Linear) -> str:
        if site.node.op_type not in ("MatMul", "Gemm") or rank(site.weight) != 2:
            return "only layers with a matrix as weight have one axis of inputs"
        if constant(site.weight) is None:
            return "its weight is coded already"
        return width_refusal(int(site.weight.shape[site.inputs[0]]), self.block)  # type: ignore[index,arg-type]

    def _online(self, site: Linear, ctx: Ctx) -> tuple[Value, np.ndarray | None]:
        """H(x) for all layers that read x, and the signs before it."""
        x, signs = site.x, None
        width = int(site.weight.shape[site.inputs[0]])  # type: ignore[index,arg-type]
        if self.signs:
            signs = hadamard.signs(width, ctx.rng)
            kind = np.float32 if x.dtype is None else x.dtype.numpy()
            factors = ctx.edit.constant(signs.astype(kind), f"{x.name}.signs")
            made = ctx.edit.node("Mul", [x, factors], like=f"{x.name}.signed", behind=x)
            made.outputs[0].type, made.outputs[0].shape = x.type, x.shape
            x = made.outputs[0]
        node = ctx.edit.hadamard(x, like=str(site.x.name), block=self.block or width)
        return node.outputs[0], signs

    def _run_pairs(self, products: Iterable[Node], ctx: Ctx) -> None:
        for node in products:
            width = node.inputs[0].shape[-1] if node.inputs[0].shape is not None else None  # type: ignore[union-attr]
            reason = width_refusal(width, self.block) if isinstance(width, int) else (
                "the number of channels that it contracts is not known")  # fmt: skip
            if reason:
                ctx.skip(node, reason)
                continue
            _mix_pair(node, self.block or int(width), ctx.edit)  # type: ignore[arg-type]
            ctx.did(node)


def width_refusal(width: int, block: int) -> str:
    """Why `width` channels cannot be transformed (in blocks), or ''."""
    if block and width % block:
        return f"blocks of {block} do not divide its {width} inputs"
    reason = hadamard.refusal(block or width)
    if reason and not block and hadamard.largest_block(width) > 1:
        reason += f": block={hadamard.largest_block(width)} would mix parts of it"
    return reason


def folded(
    weight: np.ndarray, axis: int, block: int = 0, signs: np.ndarray | None = None
) -> np.ndarray:
    """H^T diag(signs) w along w's axis of inputs: what undoes x diag(signs) H."""
    if signs is not None:
        shape = [1] * weight.ndim
        shape[axis] = -1
        weight = weight * signs.reshape(shape)
    return hadamard.transform(weight, axis, block=block)


def _pairs(graph: Graph) -> list[Node]:
    """Products of two activations whose result a Softmax sees (through scale and mask)."""
    products = [
        node for node in nodes(graph)
        if node.op_type == "MatMul" and not node.domain
        and all(v is not None and constant(v) is None for v in node.inputs)
    ]  # fmt: skip
    scores = select("into:Softmax", products)
    return [node for node in products if id(node) in scores and _direct(node)]


def _direct(node: Node) -> bool:
    """Whether no other product lies between it and the Softmax: the values' product follows it."""
    seen = [use.node for use in node.outputs[0].uses()]
    for _ in range(6):
        if any(n.op_type == "Softmax" for n in seen):
            return True
        thin = [n for n in seen if n.op_type in ("Mul", "Div", "Add", "Where", "Reshape", "Cast")]
        seen = [use.node for n in thin for use in n.outputs[0].uses()]
    return False


def _mix_pair(node: Node, order: int, edit: Edit) -> None:
    """q H and k H, k turned so that its channels are the last axis and back."""
    q, k = node.inputs
    assert q is not None
    assert k is not None
    left = edit.hadamard(q, like=str(q.name), block=order, before=node)
    axes = list(range(rank(k) or 0))
    perm = [*axes[:-2], axes[-1], axes[-2]]
    turned = edit.node("Transpose", [k], like=f"{k.name}.rows", before=node, perm=perm)
    turned.outputs[0].type = k.type
    turned.outputs[0].shape = type(k.shape)([k.shape[a] for a in perm])  # type: ignore[index,misc]
    right = edit.hadamard(turned.outputs[0], like=str(k.name), block=order, before=node)
    back = edit.node("Transpose", right.outputs, like=f"{k.name}.mixed", before=node, perm=perm)
    back.outputs[0].type, back.outputs[0].shape = k.type, k.shape
    edit.set_input(node, 0, left.outputs[0])
    edit.set_input(node, 1, back.outputs[0])
