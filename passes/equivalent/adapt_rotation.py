"""Rotate the inputs of linear layers while the graph runs, each in the way that its values need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir import hadamard
from ir.fold.tensors import exchange
from ir.graph import Graph, Value, array
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register

from .diagonal import ROWS, Channels, Site, measured, rounded
from .rotate import random_orthogonal

TOKENS = QType.parse("u4@1x0*f32+u4")


@register
@dataclass(frozen=True)
class AdaptRotation(Pass):
    """Turn each input of linear layers by no matrix, a Hadamard matrix, or one made for its values.

    rewrite:  y = x @ w
              -->
              y = (x Q) @ (Q^T w), Q left in the graph: Hadamard(x), or Q = B1 P B2
    shapes:   x [T, K], w [K, N], Q [K, K]; B1, B2 blocks of rotations, P a permutation
    options:  threshold: root mean square of x from which Q is made for it, below it Hadamard's;
              ratio: compare the largest channel's range over the median one's instead, which has
              no unit; block: channels that are turned together; steps: of the greedy search, at
              most; a, w: types (w for a K x N matrix, none: float) with which the outputs on
              calibration rows must err less than unturned; samples: of the calibration data
    error:    exact but for rounding; weights computed in float64, cast once. Q made for x costs
              K * K products a token, Hadamard's K times the sum of its factors' orders
    raises:   nothing; skips inputs whose rounding no matrix helps, and widths without one
    source:   LRQ-DiT (adaptive rotation), arXiv:2508.03485; DuQuant, arXiv:2406.01721; leaving out
              what does not help is ours
    """

    name: ClassVar[str] = "adapt_rotation"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    threshold: float = 1.0
    ratio: bool = False
    block: int = 128
    steps: int = 256
    a: QType = TOKENS
    w: QType | None = None
    samples: int = 16

    def run(self, graph: Graph, ctx: Ctx) -> None:
        kinds = {"Hadamard": 0, "greedy": 0}
        sites = measured(graph, ctx, "choosing rotations", samples=self.samples, rows=ROWS)
        for site, seen in list(sites):
            kind = "greedy" if self._fluctuates(seen) else "Hadamard"
            matrix, reason = self._matrix(kind, seen.rows.astype(np.float64), ctx.rng)
            if matrix is not None and not self._helps(site, seen, matrix):
                reason = f"its outputs err as much after a {kind} rotation"
            if matrix is None or reason:
                ctx.skip(site.x, reason)
                continue
            kinds[kind] += 1
            _put(site, kind, matrix, ctx)
            ctx.did(site.x)
        ctx.note(f"{kinds['Hadamard']} inputs by Hadamard, {kinds['greedy']} by their own rotation")

    def _fluctuates(self, seen: Channels) -> bool:
        if self.ratio:
            middle = float(np.median(seen.top))
            return float(seen.top.max()) >= self.threshold * max(middle, 1e-30)
        return float(np.sqrt(seen.power.mean())) >= self.threshold

    def _matrix(
        self, kind: str, rows: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray | None, str]:
        width = rows.shape[1]
        if kind == "Hadamard":
            reason = hadamard.refusal(width)
            return (None, reason) if reason else (hadamard.matrix(width), "")
        block = min(self.block, width)
        if width % block:
            return None, f"blocks of {block} do not divide its {width} inputs"
        return own_rotation(rows, block, self.steps, rng), ""

    def _helps(self, site: Site, seen: Channels, matrix: np.ndarray) -> bool:
        rows, weight = seen.rows.astype(np.float64), site.weight().astype(np.float64)
        wanted = rows @ weight
        before = self._rounded(rows, weight) - wanted
        after = self._rounded(rows @ matrix, matrix.T @ weight) - wanted
        return float(np.square(after).sum()) < float(np.square(before).sum())

    def _rounded(self, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        weight = weight if self.w is None else rounded(weight.astype(np.float32), self.w)
        return rounded(rows.astype(np.float32), self.a).astype(np.float64) @ weight


def _put(site: Site, kind: str, matrix: np.ndarray, ctx: Ctx) -> None:
    x, name = site.x, str(site.x.name)
    made = ctx.edit.hadamard(x, like=name) if kind == "Hadamard" else (
        ctx.edit.turn(x, matrix, like=name))  # fmt: skip
    for layer in site.layers:
        weight: Value | None = layer.node.inputs[1]
        numbers = array(weight)
        assert weight is not None
        assert numbers is not None
        wide = numbers.astype(np.float64)
        turned = matrix.T @ wide if layer.inputs == (0,) else wide @ matrix
        ctx.edit.set_input(layer.node, 0, made.outputs[0])
        exchange(layer.node, 1, turned, f"{weight.name}.mixed", ctx.edit)


def own_rotation(rows: np.ndarray, block: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Q f64[K, K] = B1 P B2 for rows f64[T, K]: greedy rotations of blocks, a zigzag permutation
    that deals the widest channels out to all blocks, and greedy rotations again."""
    first = _blocks(rows, block, steps, rng)
    turned = rows @ first
    order = zigzag(turned.max(axis=0) - turned.min(axis=0), rows.shape[1] // block)
    second = _blocks(turned[:, order], block, steps, rng)
    return first[:, order] @ second


def _blocks(rows: np.ndarray, block: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    whole = np.zeros((rows.shape[1],) * 2)
    for start in range(0, rows.shape[1], block):
        part = slice(start, start + block)
        whole[part, part] = greedy(rows[:, part], steps, rng)
    return whole


def greedy(rows: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Q f64[n, n]: step by step the channel with the largest value is spread over all; of these
    products the one after which the rows' values span the least (at first none)."""
    size = rows.shape[1]
    even, mixed = spreading(size), np.eye(size)
    if size > 1:
        mixed[1:, 1:] = random_orthogonal(size - 1, rng)
    step_matrix = mixed @ even
    found = best = np.eye(size)
    least = float(np.ptp(rows))
    for _ in range(steps):
        top = int(np.abs(rows).max(axis=0).argmax())
        order = np.arange(size)
        order[[0, top]] = order[[top, 0]]
        turn = step_matrix[order][:, order]
        rows, found = rows @ turn, found @ turn
        span = float(np.ptp(rows))
        if span < least:
            least, best = span, found
    return best


def spreading(size: int) -> np.ndarray:
    """The reflection f64[n, n] whose first row and column are 1 / sqrt(n) throughout."""
    axis = np.full(size, -1 / np.sqrt(size))
    axis[0] += 1
    norm = axis @ axis
    return np.eye(size) - (2 / norm if norm else 0.0) * np.outer(axis, axis)


def zigzag(spans: np.ndarray, blocks: int) -> np.ndarray:
    """The channels in the order of the blocks that they are dealt to, widest first, there and
    back again."""
    rounds = np.argsort(-spans, kind="stable").reshape(-1, blocks)
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.T.ravel()
