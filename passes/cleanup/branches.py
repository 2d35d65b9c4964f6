"""An If whose condition is a constant: the branch that is taken moves to its place."""

from __future__ import annotations

from ir.graph import Node, array, attribute
from passes.core import Ctx


def inline(node: Node, ctx: Ctx) -> bool:
    """Replace an If with a constant condition by its branch; whether that was done."""
    condition = array(node.inputs[0])
    if condition is None:
        return False
    branch = attribute(node, "then_branch" if condition.all() else "else_branch")
    edit, inputs = ctx.edit, list(node.inputs)
    ctx.did(node)
    for value in list(branch.initializers.values()):
        held = edit.constant(value.const_value, str(value.name), at=node)
        value.replace_all_uses_with(held, replace_graph_outputs=True)
    results = edit.unpack(branch, after=node)
    for old, new in zip(node.outputs, results, strict=True):
        # A branch may return a value of the outside, or the same one twice: a copy takes the name.
        own = new.producer() is not None and new.producer().graph is node.graph  # type: ignore
        if not own or results.count(new) > 1 or new.is_graph_output() or new.is_graph_input():
            new = edit.node("Identity", [new], like=old.name or "", after=_last(node, new)).outputs[
                0
            ]
        edit.replace(old, new)
    edit.remove(node)
    for value in inputs:
        if value is not None and not value.uses() and value.is_initializer():
            edit.drop_constant(value)
    return True


def _last(node: Node, value) -> Node:
    """The node after which a copy of the value may stand."""
    maker = value.producer()
    return maker if maker is not None and maker.graph is node.graph else node
