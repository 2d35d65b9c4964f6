"""Let coded layers compute in float again, with what that means for the nodes around them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ir import ops
from ir.edit import Edit
from ir.graph import Graph, Node, Value, array, constant, nodes
from passes.placement import fused_output
from passes.sites import WRITTEN, Linear, bias_of


def free_values(edit: Edit, graph: Graph, sites: Sequence[Linear], chosen: Collection[str]) -> None:
    """Let the chosen of the coded layers (by their output's name) read and write floats.

    What a chosen layer wrote as codes exists in float again: its Encode loses the mark `WRITTEN`,
    and every reader that is no integer kernel reads the float. A chosen layer goes on reading codes
    where nothing else exists. Weights are left alone.
    """
    freed = [site for site in sites if site.y.name in chosen]
    written = []
    for site in freed:
        value = fused_output(site.y)
        for encode in _written(value):
            del encode.metadata_props[WRITTEN]
            written.append((value, encode))
    integer = {id(site.node) for site in sites if site.y.name not in chosen}
    integer |= {id(n) for n in nodes(graph) if n.outputs and _written(fused_output(n.outputs[0]))}
    for value, encode in written:
        for decode in _readers(encode.outputs[0]):
            _read_instead(edit, decode, value, integer)
    for site in freed:
        encode, decode = ops.encode_of(site.x), ops.decode_of(site.x)
        if encode is None or decode is None or WRITTEN in encode.metadata_props:
            continue
        edit.set_input(site.node, 0, encode.inputs[0])
        _forget(edit, decode)


def reads_codes(site: Linear) -> bool:
    """Whether a layer's input is decoded from codes."""
    return ops.decode_of(site.x) is not None


def float_weight(edit: Edit, site: Linear, original: Linear) -> None:
    """Give a layer the weight of the float model, and the bias, which may have been corrected."""
    tensor, decode = constant(original.weight), ops.decode_of(site.weight)
    assert tensor is not None
    edit.set_input(site.node, 1, _once(edit, original.weight, tensor))
    if decode is not None:
        _forget(edit, decode)
    here, there = bias_of(site), bias_of(original)
    if here is None or there is None:
        return
    old, bias = here[0].inputs[here[1]], array(there[0].inputs[there[1]])
    assert old is not None
    if bias is not None and old.name != (there[0].inputs[there[1]] or old).name:
        source = there[0].inputs[there[1]]
        assert source is not None
        edit.set_input(here[0], here[1], _once(edit, source, constant(source)))
        edit.drop_constant(old)


def _once(edit: Edit, value: Value, tensor) -> Value:
    """A constant of the float model: the graph's own, where it has it still."""
    name = value.name or "weight"
    known = edit.graph.graph.initializers.get(name)
    same = known is not None and constant(known) is tensor
    return known if known is not None and same else edit.constant(tensor, name)


def _forget(edit: Edit, decode: Node) -> None:
    """Remove a Decode that nothing reads, and what only it and its Encode read."""
    makers = [decode, *(n for n in (v.producer() for v in decode.inputs if v) if n)]
    parts = [v for n in makers for v in n.inputs if v is not None]
    edit.remove_dead(decode)
    for value in parts:
        edit.drop_constant(value)


def _written(value: Value) -> list[Node]:
    """The Encodes of a value that its kernel computes itself."""
    return [
        node for node in _readers(value)
        if ops.is_op(node, "Encode") and WRITTEN in node.metadata_props
    ]  # fmt: skip


def _readers(value: Value) -> list[Node]:
    return [use.node for use in value.uses()]


def _read_instead(edit: Edit, decode: Node, value: Value, integer: Collection[int]) -> None:
    for use in list(decode.outputs[0].uses()):
        if id(use.node) not in integer:
            edit.set_input(use.node, use.idx, value)
    _forget(edit, decode)
