"""Learn the rotations of a whole model by what its rounded self puts out."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from backends.torch import Executor
from calib.interrupts import whole_steps
from calib.replay import Saved, relative_square, top_divergence, work_key
from calib.replay.loop import judges
from calib.replay.stiefel import RiemannianAdam, nearest_orthogonal
from ir.analysis.rotations import MatrixStream
from ir.errors import PassError
from ir.fold import fold_scale
from ir.fold.matrix import fold_maps, orthogonal
from ir.fold.online import put_online
from ir.graph import Graph
from ir.hadamard import refusal
from ir.qtype import QType
from passes.core import Ctx, Effect, Pass, register
from passes.padding import valid_rows
from passes.probe import first_samples, in_batches

from .rotate import random_rotation, rotation
from .turned import Options, Student, scalable, turnable

TOKENS = QType.parse("u4@1x0*f32+u4")
LOOKS = 10
"""So often the held-out loss is taken on the way."""
NAME = "rotations"


@register
@dataclass(frozen=True)
class LearnRotation(Pass):
    """Turn residual streams and the values of attention by orthogonal matrices that are learned.

    rewrite:  x = Gather(E, ids) + h @ Wo;       y = RMSNormalization(x, 1) @ Wq
              -->
              x = Gather(E R, ids) + h @ (Wo R); y = RMSNormalization(x, 1 / s) @ (s * (R^T Wq))
    shapes:   R [C, C] for a stream of C channels, [D, D] for heads of D; s [C]; E [V, C],
              Wo [M, C], Wq [C, N]
    options:  a: values of MatMul and Gemm are rounded so while learning (one scale a row at run
              time); w: weights, too, written for a K x N matrix (none: float, as for a rounding
              that makes up for itself); keep: selectors of layers not rounded; residual, heads,
              online: as of `rotate`; scales: learn a factor for every input of layers as well;
              top: the loss is the divergence from the float model's so many likeliest ids, over the
              last axis of the first output (0: squared error of all outputs, relative to theirs);
              steps, batch, samples: of the calibration data, a quarter of which only judges; rate:
              radians that a step turns channels by at first (it falls as a cosine); scale_rate:
              Adam's step of the scales' logarithms
    error:    exact but for rounding; the held-out loss of the rounded model is never above that
              unturned, or turned as `rotate` would
    raises:   PassError when the loss is not finite; skips streams that anything else writes or
              reads, inputs whose writers take no factor, and all where nothing lowers the loss
    source:   SpinQuant, arXiv:2405.16406 (R1, R2); OSTQuant, arXiv:2501.13987 (scales, the loss)
    """

    name: ClassVar[str] = "learn_rotation"
    effect: ClassVar[Effect] = Effect.EXACT
    optional: ClassVar[bool] = True

    a: QType | None = TOKENS
    w: QType | None = None
    keep: tuple[str, ...] = ()
    residual: bool = True
    heads: bool = True
    online: int = 0
    scales: bool = False
    top: int = 0
    steps: int = 100
    batch: int = 4
    samples: int = 64
    rate: float = 0.02
    scale_rate: float = 0.002

    def run(self, graph: Graph, ctx: Ctx) -> None:
        options = Options(
            self.residual, self.heads, self.online, self.scales, self.a, self.w, self.keep
        )
        found = list(turnable(graph, options))
        for stream, reason in found:
            if reason:
                ctx.skip(stream.value, reason)
        streams = [stream for stream, reason in found if not reason]
        inputs = list(scalable(graph)) if self.scales else []
        for site, reason in inputs:
            if reason:
                ctx.skip(site.x, reason)
        chosen = [site for site, reason in inputs if not reason]
        feeds = in_batches(first_samples(ctx.data or (), self.samples, graph), self.batch, graph)
        if not feeds or not (streams or chosen):
            return
        saved = Saved(ctx.checkpoint, work_key(graph, feeds, str(self), ctx.seed))
        learned = Learning(graph, Student(graph, options), feeds, self, ctx).learn(saved)
        if learned is None:
            for site in (*streams, *chosen):
                value = site.value if isinstance(site, MatrixStream) else site.x
                ctx.skip(value, "nothing learned lowers the loss of the rounded model")
        else:
            _turn(streams, learned, ctx)
            _scale(graph, learned, ctx)
        saved.remove()


def _turn(streams: Sequence[MatrixStream], learned: Mapping[str, np.ndarray], ctx: Ctx) -> None:
    turned = []
    for number, stream in enumerate(streams):
        q = nearest_orthogonal(learned[f"turn/{number}"])
        each = orthogonal(functools.partial(lambda q, rows: rows @ q, q))
        put_online(stream, each, ctx.edit)
        turned.append((stream, each))
        ctx.did(stream.value)
    fold_maps(turned, ctx.edit, "turned")


def _scale(graph: Graph, learned: Mapping[str, np.ndarray], ctx: Ctx) -> None:
    """After the rotations: the streams of single channels are found again in what they left."""
    logs = [log for name, log in learned.items() if name.startswith("scale/")]
    if not logs:
        return
    sites = [site for site, reason in scalable(graph) if not reason]
    for site, log in zip(sites, logs, strict=True):
        assert site.stream is not None
        ctx.did(site.x)
        fold_scale(site.stream, np.exp(log), ctx.edit)


class Learning:
    """The parameters on their way, and how well the best of them did on held-out batches."""

    def __init__(
        self, graph: Graph, student: Student, feeds: Sequence[Mapping[str, np.ndarray]],
        how: LearnRotation, ctx: Ctx,
    ) -> None:  # fmt: skip
        self.student, self.feeds, self.how, self.ctx = student, feeds, how, ctx
        self.teacher = Executor(graph)
        self.rows = [_tensor(valid_rows(graph, feed)) for feed in feeds]
        self.judging = judges(len(feeds), 0.25)
        self.training = [i for i in range(len(feeds)) if i not in self.judging] or self.judging
        self.names = list(self.teacher.outputs)[: 1 if how.top else None]
        plain = {n: torch.eye(size, dtype=torch.float64) for n, size in student.turns.items()}
        drawn = {n: _drawn(size, ctx.rng) for n, size in student.turns.items()}
        logs = {n: torch.zeros(size, dtype=torch.float64) for n, size in student.scales.items()}
        self.starts = [{**plain, **logs}, {**drawn, **logs}][: 2 if plain else 1]
        self.step, self.best_step, self.losses, self.least = 0, 0, [], math.inf
        self.best: dict[str, torch.Tensor] = {}

    def learn(self, saved: Saved) -> dict[str, np.ndarray] | None:
        """The best parameters; None where the model as it was does as well."""
        state = saved.begin(NAME)
        self._begin() if state is None else self._restore(state)
        torn = False
        try:
            while self.step < self.how.steps:
                self.ctx.progress("learning rotations", self.step, self.how.steps)
                with whole_steps():
                    torn = True
                    self._advance()
                    saved.hold(NAME, self._state())
                    torn = False
        except KeyboardInterrupt:
            if not torn:
                saved.save()
            raise
        parts = " (unturned), ".join(f"{loss:.4g}" for loss in self.losses)
        self.ctx.note(f"held-out loss {parts} at first, {self.least:.4g} at step {self.best_step}")
        if self.least >= self.losses[0]:
            return None
        return {name: tensor.numpy() for name, tensor in self.best.items()}

    def _begin(self) -> None:
        self.losses = [self._judge(start) for start in self.starts]
        chosen = int(np.argmin(self.losses))
        self.least, self.best = self.losses[chosen], _copies(self.starts[chosen])
        self._parameters(self.best)

    def _parameters(self, start: Mapping[str, torch.Tensor]) -> None:
        self.parameters = {n: t.clone().requires_grad_(True) for n, t in start.items()}
        self.turning = RiemannianAdam({n: self.parameters[n] for n in self.student.turns})
        held = [self.parameters[n] for n in self.student.scales]
        self.scaling = torch.optim.Adam(held, lr=self.how.scale_rate) if held else None

    def _advance(self) -> None:
        """One batch; from time to time, and at the end, the held-out loss."""
        walk, place = divmod(self.step, len(self.training))
        order = np.random.default_rng((self.ctx.seed, walk)).permutation(self.training)
        for parameter in self.parameters.values():
            parameter.grad = None
        with torch.enable_grad():
            loss = self._loss(int(order[place]), self.student.weights(self.parameters))
        self._check(loss.item())
        if loss.requires_grad:
            loss.backward()
            fall = (1 + math.cos(math.pi * self.step / self.how.steps)) / 2
            self.turning.step(self.how.rate * fall)
            if self.scaling is not None:
                self.scaling.param_groups[0]["lr"] = self.how.scale_rate * fall
                self.scaling.step()
        self.step += 1
        if self.step % max(1, self.how.steps // LOOKS) and self.step < self.how.steps:
            return
        found = self._judge(self.parameters)
        if found < self.least:
            self.least, self.best, self.best_step = found, _copies(self.parameters), self.step

    def _judge(self, parameters: Mapping[str, torch.Tensor]) -> float:
        with torch.no_grad():
            weights = self.student.weights(parameters)
            found = float(np.mean([self._loss(i, weights).item() for i in self.judging]))
        self._check(found)
        return found

    def _loss(self, index: int, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        feed, rows = self.feeds[index], self.rows[index]
        with torch.no_grad():
            wanted = self.teacher.run(feed, outputs=self.names)
        found = self.student.executor.run(feed, outputs=self.names, params=weights)
        names = [n for n, t in wanted.items() if torch.is_tensor(t) and t.is_floating_point()]
        if self.how.top:
            return top_divergence(found[names[0]], wanted[names[0]], rows, self.how.top)
        return sum((relative_square(found[n], wanted[n], rows) for n in names), torch.zeros(()))

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise PassError(
                f"the loss is {loss} at step {self.step}",
                hint="lower the rate, or look for values that are not finite in the data",
            )

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step, "best_step": self.best_step, "losses": self.losses,
            "least": self.least, "best": self.best, "parameters": _copies(self.parameters),
            "turning": self.turning.state(),
            "scaling": None if self.scaling is None else self.scaling.state_dict(),
        }  # fmt: skip

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._parameters(state["parameters"])
        self.turning.restore(state["turning"])
        if self.scaling is not None:
            self.scaling.load_state_dict(state["scaling"])
        self.step, self.best_step = state["step"], state["best_step"]
        self.losses, self.least, self.best = state["losses"], state["least"], state["best"]


def _drawn(size: int, rng: np.random.Generator) -> torch.Tensor:
    """The matrix that `rotate` would draw."""
    turn = (random_rotation if refusal(size) else rotation)(size, rng)
    return torch.from_numpy(turn.write(np.eye(size)))


def _copies(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def _tensor(marks: np.ndarray | None) -> torch.Tensor | None:
    return None if marks is None else torch.from_numpy(marks)
