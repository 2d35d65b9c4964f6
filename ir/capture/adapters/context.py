"""The few edits adapters need: read an attribute, make a constant, put nodes around a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ir.errors import CaptureError


class Context:
    """Edits inside one graph (or function body) of the model that is being upgraded.

    `used` holds every value name of the whole model, so new names never collide. In a function
    body constants are Constant nodes, because a FunctionProto has no initializers.
    """

    def __init__(self, graph: ir.Graph, used: set[str], *, in_function: bool) -> None:
        self.graph = graph
        self.used = used
        self.in_function = in_function

    def name(self, base: str) -> str:
        """`base`, or `base_2`, `base_3`, ...: a value name that nothing in the model carries."""
        name, count = base, 1
        while name in self.used:
            count += 1
            name = f"{base}_{count}"
        self.used.add(name)
        return name

    def constant(self, node: ir.Node, what: str, array: Any, dtype: Any = np.int64) -> ir.Value:
        """A constant of the given numpy `dtype`, visible to `node` and named after it."""
        stem = node.outputs[0].name or node.op_type
        name = self.name(f"{stem}.{what}")
        tensor = ir.tensor(np.asarray(array, dtype=dtype), name=name)
        if self.in_function:
            attribute = ir.AttrTensor("value", tensor)
            maker = ir.Node("", "Constant", [], [attribute], num_outputs=1)
            value = maker.outputs[0]
            value.name = name
            self.graph.insert_before(node, maker)
        else:
            value = ir.Value(name=name, const_value=tensor)
            self.graph.register_initializer(value)
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(tensor.shape.numpy())
        return value

    def before(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], /, **attributes: Any
    ) -> ir.Value:
        """The single output of a new node, already in its opset-25 form, placed before `node`."""
        made = self._make(node, op, inputs, attributes)
        self.graph.insert_before(node, made)
        return made.outputs[0]

    def after(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], /, **attributes: Any
    ) -> ir.Value:
        """Like `before`, placed directly behind `node`."""
        made = self._make(node, op, inputs, attributes)
        self.graph.insert_after(node, made)
        return made.outputs[0]

    def _make(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]
    ) -> ir.Node:
        made = ir.node(op, inputs, attributes=attributes)
        stem = node.outputs[0].name or node.op_type
        made.name = made.outputs[0].name = self.name(f"{stem}.{op.lower()}")
        made.metadata_props.update(node.metadata_props)
        return made

    def replace(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """Let `value` stand wherever output `index` of `node` stood, under the same name.

        The node that makes `value` may itself read that output, and goes on doing so.
        """
        old, maker = node.outputs[index], value.producer()
        assert maker is not None
        own = [position for position, read in enumerate(maker.inputs) if read is old]
        name, value.type, value.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        for position in own:
            maker.replace_input_with(position, old)
        old.name = self.name(f"{name}.old")
        value.name = name


Adapter = Callable[[ir.Node, Context], None]


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, `default` where it is absent; a string as `str`."""
    found = node.attributes.get(name)
    if found is None:
        return default
    if found.is_ref():
        raise CaptureError(
            f"attribute '{name}' refers to a function's attribute and its operator changed since",
            at=node,
            hint="inline the model's functions before capture",
        )
    return found.value


def take(node: ir.Node, name: str, default: Any = None) -> Any:
    """Read an attribute and remove it from the node."""
    value = attribute(node, name, default)
    if name in node.attributes:
        del node.attributes[name]
    return value


def source(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    """Make `value` input `index`, growing the node where needed."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def is_used(value: ir.Value) -> bool:
    """Somebody reads the value or it leaves the graph."""
    return bool(value.uses()) or value.is_graph_output()
