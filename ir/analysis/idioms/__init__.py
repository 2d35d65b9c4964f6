"""Decomposed standard ops, recognised as one thing whichever exporter wrote them.

`find(graph)` looks at structure and constants only, never at names: from each node that an idiom
cannot do without (the Erf of a GELU, the Softmax of an attention) it looks a bounded distance
around, so the time is linear in the number of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ir.analysis.idioms import activations, attention, norms, rotary
from ir.analysis.idioms.base import Idiom, is_closed
from ir.graph import Graph, Node, graphs

__all__ = ["Idiom", "find"]


def _softmax_then_attention(anchor: Node) -> Iterator[Idiom]:
    for soft in attention.softmax(anchor):
        yield from attention.attention_around(soft)
        yield soft


def _dropout(anchor: Node) -> Iterator[Idiom]:
    if attention.inactive(anchor):
        yield Idiom("Identity", (anchor,), (anchor.inputs[0],), (anchor.outputs[0],))


def _relu6_clip(anchor: Node) -> Iterator[Idiom]:
    yield from activations.relu6_forms(anchor)


RECOGNISERS: dict[str, tuple[Callable[[Node], Iterable[Idiom]], ...]] = {
    "Erf": (activations.erf_gelu,),
    "Tanh": (activations.tanh_forms,),
    "Sigmoid": (activations.sigmoid_forms,),
    "HardSigmoid": (activations.hard_sigmoid_gate,),
    "Clip": (_relu6_clip,),
    "ReduceMean": (norms.layer_or_rms_norm,),
    "ReduceL2": (norms.l2_norm,),
    "ReduceSum": (norms.l2_norm,),
    "InstanceNormalization": (norms.group_norm,),
    "Exp": (_softmax_then_attention,),
    "Softmax": (attention.attention,),
    "Neg": (rotary.rotated,),
    "Sub": (rotary.paired,),
    "Dropout": (_dropout,),
}
"""Op that an idiom is recognised from -> what looks around it; each yields the largest first."""


def find(graph: Graph) -> list[Idiom]:
    """Every idiom of the graph, of its If/Loop/Scan bodies and of its functions; none overlap.

    Shapes must have been inferred for attention, rotary embedding and group norm to be found.
    """
    found: list[Idiom] = []
    taken: set[int] = set()
    for each in graphs(graph):
        candidates = [idiom for node in each if (idiom := _at(node)) is not None]
        for idiom in candidates:
            keys = {id(node) for node in idiom.nodes}
            if not keys & taken:
                taken |= keys
                found.append(idiom)
    return found


def _at(node: Node) -> Idiom | None:
    """The largest idiom recognised from this node whose inside nobody else reads."""
    if node.domain not in ("", "ai.onnx"):
        return None
    for recognise in RECOGNISERS.get(node.op_type, ()):
        for idiom in recognise(node):
            if is_closed(idiom):
                return idiom
    return None
