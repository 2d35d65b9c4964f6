"""Let activations grow without an upper bound where the data hardly meets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from backends.torch import Executor
from ir.edit import Edit
from ir.graph import Graph, Node, nodes, scalar
from passes.core import Ctx, Effect, Pass, register
from passes.probe import first_samples


@register
@dataclass(frozen=True)
class Unclip(Pass):
    """Put a ReLU in the place of a ReLU6, so that factors pass it.

    rewrite:  y = Clip(x, 0, 6) --> y = Relu(x)
    shapes:   any
    options:  share in [0, 1], of the values that data puts above the bound, at most; 1 asks no
              data; samples: of the calibration data, at least, that are looked at
    error:    none where x stays below the bound; elsewhere y is larger than it was
    raises:   nothing; skips clips whose bounds are no constants or not 0 and above, or that data
              meets more often, with the share
    source:   DFQ, arXiv:1906.04721, section 5.1.1 (ReLU6 replaced by ReLU)
    """

    name: ClassVar[str] = "unclip"
    effect: ClassVar[Effect] = Effect.LOSSY
    optional: ClassVar[bool] = True

    share: float = 0.0
    samples: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("share must lie in [0, 1]")

    def run(self, graph: Graph, ctx: Ctx) -> None:
        found: list[tuple[Node, float]] = []
        for node in nodes(graph):
            if node.op_type != "Clip" or node.domain:
                continue
            high = upper_bound(node)
            if high is None:
                ctx.skip(node, "its bounds are not the constants 0 and one above it")
            else:
                found.append((node, high))
        asks = self.share < 1
        met = above(graph, found, first_samples(ctx.data or (), self.samples)) if asks else {}
        for node, _ in found:
            name = str(node.inputs[0].name)  # type: ignore[union-attr]
            if asks and name not in met:
                ctx.skip(node, "no data reached it")
            elif asks and met[name] > self.share:
                ctx.skip(node, f"{met[name]:.2%} of its values lie above the bound")
            else:
                to_relu(node, ctx.edit)
                ctx.did(node.inputs[0])


def upper_bound(node: Node) -> float | None:
    """The upper bound of a Clip from 0 up; None: it is another clip."""
    low, high = (scalar(v) for v in (*node.inputs[1:], None, None)[:2])
    return high if low == 0 and high is not None and high > 0 else None


def above(
    graph: Graph, clips: Sequence[tuple[Node, float]], probes: Sequence[Mapping]
) -> dict[str, float]:
    """The share of every clip's input that lies above its bound, over all feeds."""
    counts: dict[str, tuple[int, int]] = {}
    bounds: dict[str, float] = {}
    for node, high in clips:
        name = str(node.inputs[0].name)  # type: ignore[union-attr]
        bounds[name] = min(high, bounds.get(name, high))

    def look(name: str, high: float):
        def see(tensor) -> None:
            over, size = counts.get(name, (0, 0))
            counts[name] = over + int((tensor > high).sum()), size + tensor.numel()

        return see

    executor = Executor(graph)
    for feeds in probes if bounds else ():
        executor.run(feeds, watch={name: look(name, high) for name, high in bounds.items()})
    return {name: over / size for name, (over, size) in counts.items() if size}


def to_relu(node: Node, edit: Edit) -> None:
    output = node.outputs[0]
    made = edit.node("Relu", node.inputs[:1], like=str(output.name), before=node)
    bounds = [v for v in node.inputs[1:] if v is not None and v.is_initializer()]
    edit.replace(output, made.outputs[0])
    edit.remove(node)
    for value in bounds:
        edit.drop_constant(value)
