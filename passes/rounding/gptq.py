"""Round weights so that later columns make up for the errors of earlier ones, on the model's own
quantized inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from backends.torch import Executor
from calib.interrupts import whole_steps
from calib.replay import Saved, work_key
from calib.replay.front import Front
from ir.errors import BackendError
from ir.graph import Graph, Node
from ir.verify import Stage
from passes.core import Ctx, Effect, Pass, register
from passes.padding import valid_rows
from passes.probe import first_samples, in_batches
from passes.sites import Linear, decodes_of, linears

from .clip import MOVED
from .core import SolveError
from .hessians import hessians, refusal
from .rtn import encodes, round_nearest, write_codes
from .weights import Rounded, Task, decoded, solve_task


@register
@dataclass(frozen=True)
class Gptq(Pass):
    """Replace every Encode of a layer's weight by codes that keep the layer's output.

    rewrite:  wq = Encode(w, s);  y = x @ Decode(wq, s)
              -->
              wq = const;         y = x @ Decode(wq, s)
    shapes:   w, wq [K, N] (or a Conv's layout); s as `QType.scale_shape`
    options:  damp: added to the Hessian's diagonal, as a share of its mean, and raised tenfold
              until the Hessian has a factor; order: round the columns of the largest inputs first
              (scales stay those of their groups); samples: of the calibration data; batch: samples
              computed at once
    error:    the least that one walk over the columns finds; the note compares its sum with that of
              rounding to nearest on the same inputs
    raises:   DataError without calibration data; what cannot be solved is rounded to nearest and
              skipped with the reason. A weight of several layers follows the first one's inputs
    source:   GPTQ, arXiv:2210.17323; sequential: every layer sees what the layers before it put
              out, rounded
    """

    name: ClassVar[str] = "gptq"
    effect: ClassVar[Effect] = Effect.LOSSY
    takes: ClassVar[frozenset[Stage]] = frozenset({Stage.CODED})

    damp: float = 0.01
    order: bool = True
    samples: int = 64
    batch: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.damp <= 1:
            raise ValueError("damp must lie in [0, 1]")
        if self.samples < 1 or self.batch < 1:
            raise ValueError("samples and batch must be at least 1")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        stages, rest = _stages(graph)
        results: list[tuple[Task, Rounded]] = []
        feeds = in_batches(first_samples(ctx.data or (), self.samples, graph), self.batch, graph)
        if stages:
            saved = Saved(ctx.checkpoint, work_key(graph, feeds, str(self), ctx.seed))
            front = Front(graph, Executor(graph), feeds)
            rows = [valid_rows(graph, feed) for feed in feeds]
            try:
                for number, tasks in enumerate(stages):
                    ctx.progress("rounding layers", number, len(stages))
                    with whole_steps():
                        solved, failed = self._stage(tasks, front, rows, saved)
                    results += solved
                    rest += failed
            except KeyboardInterrupt:
                saved.save()
                raise
            saved.remove()
        for task, found in results:
            ctx.did(task.encode_input)
            write_codes(task.encode, found.codes, found.scale if task.paired else None, ctx)
        for encode, reason in rest:
            if reason:
                ctx.skip(encode.inputs[0], f"{reason}; rounded to nearest")
            else:
                ctx.did(encode.inputs[0])
            round_nearest(encode, ctx)
        if results:
            ctx.note(_summary([found for _, found in results]))

    def _stage(
        self, tasks: list[Task], front: Front, rows: list[Any], saved: Saved
    ) -> tuple[list[tuple[Task, Rounded]], list[tuple[Node, str]]]:
        """Layers that read one value: solved, or the reasons why not."""
        inputs: list[torch.Tensor] = []
        failed: list[tuple[Node, str]] = []
        solved: list[tuple[Task, Rounded]] = []
        problem = ""
        try:
            inputs = front.advance(tasks[0].site.x.name or "")
        except BackendError as error:
            problem = error.cause
        shared: dict[Any, Any] = {}
        for task in tasks:
            if problem:
                failed.append((task.encode, problem))
                continue
            stored = saved.done.get(task.key)
            try:
                if stored is None:
                    key = task.window
                    if key not in shared:
                        shared[key] = hessians(task.site, inputs, rows)
                    found = solve_task(task, shared[key], self.damp, self.order)
                    saved.done[task.key] = found.state()
                else:
                    found = Rounded.restored(stored)
            except SolveError as error:
                failed.append((task.encode, str(error)))
                continue
            solved.append((task, found))
            value = torch.from_numpy(decoded(task, found))
            front.settle({node.outputs[0].name or "": value for node in task.decodes})
        saved.hold("", {})
        return solved, failed


def _stages(graph: Graph) -> tuple[list[list[Task]], list[tuple[Node, str]]]:
    """Encoded weights by the value that their layers read, in the graph's order; and the others,
    each with the reason why it is not solved ('': no layer reads it)."""
    sites: dict[int, list[Linear]] = {}
    for site in linears(graph):
        sites.setdefault(id(site.weight.producer()), []).append(site)
    outer = {id(node): i for i, node in enumerate(graph.graph)}
    found: list[tuple[int, Task]] = []
    rest: list[tuple[Node, str]] = []
    for encode in encodes(graph):
        decodes = decodes_of(encode)
        readers = [use.node for use in encode.outputs[0].uses()]
        mine = [s for d in decodes or readers for s in sites.get(id(d), [])]
        mine.sort(key=lambda s: outer.get(id(s.node), len(outer)))
        reason = ""
        if mine:
            reason = MOVED if decodes is None else refusal(mine[0], encode)
            if not reason and id(mine[0].node) not in outer:
                reason = "it lies in a body, which may run any number of times"
        if not mine or reason or decodes is None:
            rest.append((encode, reason))
            continue
        found.append((outer[id(mine[0].node)], Task(encode, tuple(decodes), mine[0])))
    groups: dict[str, list[Task]] = {}
    for _, task in sorted(found, key=lambda pair: pair[0]):
        groups.setdefault(task.site.x.name or "", []).append(task)
    return list(groups.values()), rest


def _summary(found: list[Rounded]) -> str:
    error, nearest = sum(f.error for f in found), sum(f.nearest for f in found)
    share = f"{error / nearest:.3f} of" if nearest else "equal to"
    raised = [f for f in found if f.raised]
    dead = sum(f.dead for f in found)
    text = f"squared output error of {len(found)} weights: {share} that of rounding to nearest"
    if dead:
        text += f"; {dead} input channels were always zero"
    if raised:
        text += f"; damp had to be raised for {len(raised)}, up to {max(f.damp for f in raised):g}"
    return text
