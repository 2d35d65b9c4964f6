"""Turn residual streams, and what attention sums, by orthogonal matrices folded into weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ir.analysis.rotations import attention_streams, residual_streams
from ir.fold.matrix import Map, fold_maps, orthogonal
from ir.fold.online import online_refusal, put_online
from ir.graph import Graph
from ir.hadamard import refusal, signs, transform
from passes.core import Ctx, Effect, Pass, register


@register
@dataclass(frozen=True)
class Rotate(Pass):
    """Rotate every residual stream, and the values of every attention, inside the weights.

    rewrite:  x = Gather(E, ids) + h @ Wo;       y = RMSNormalization(x, 1) @ Wq
              -->
              x = Gather(E Q, ids) + h @ (Wo Q); y = RMSNormalization(x, 1) @ (Q^T Wq)
    shapes:   Q [C, C] for a stream of C channels; [D, D] for heads of D, one for all heads of an
              attention; E [V, C], Wo [M, C], Wq [C, N]
    options:  hadamard: Walsh-Hadamard matrices under random signs, else (and for sizes of which
              none is known) random orthogonal ones;
              residual: rotate residual streams (R1); heads: rotate attention's values (R2);
              online: so many products with Q or its inverse a stream may leave in the graph, where
              it comes in from or goes out to what none folds into
    error:    exact but for rounding; computed in float64, cast once
    raises:   PassError when a weight is not finite in its type afterwards; skips streams that
              anything else writes or reads, with the reason
    source:   QuaRot, arXiv:2404.00456, sections 3 and 4; SpinQuant, arXiv:2405.16406 (R1, R2)
    """

    name: ClassVar[str] = "rotate"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    hadamard: bool = True
    residual: bool = True
    heads: bool = True
    online: int = 0

    def run(self, graph: Graph, ctx: Ctx) -> None:
        found = residual_streams(graph) if self.residual else []
        found += attention_streams(graph) if self.heads else []
        turned = []
        for stream in found:
            reason = online_refusal(stream, self.online)
            if reason:
                ctx.skip(stream.value, reason)
                continue
            exists = self.hadamard and not refusal(stream.size)
            turn = (rotation if exists else random_rotation)(stream.size, ctx.rng)
            ctx.did(stream.value)
            put_online(stream, turn, ctx.edit)
            turned.append((stream, turn))
        fold_maps(turned, ctx.edit, "turned")


def rotation(size: int, rng: np.random.Generator) -> Map:
    """A Walsh-Hadamard matrix under random signs: rows y -> (y * signs) @ H."""
    drawn = signs(size, rng)
    return orthogonal(lambda rows: transform(rows * drawn))


def random_rotation(size: int, rng: np.random.Generator) -> Map:
    """A random orthogonal matrix."""
    q = random_orthogonal(size, rng)
    return orthogonal(lambda rows: rows @ q)


def random_orthogonal(size: int, rng: np.random.Generator) -> np.ndarray:
    """Q f64[size, size], evenly distributed: QR of normal numbers, its signs made unique."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))
