"""Nodes -> a flat list of steps over numbered slots; local functions are inlined.

A body of If/Loop/Scan becomes a Program of its own whose outer values are extra inputs of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from backends.torch import fallback
from backends.torch.control import CONTROL, Control
from backends.torch.dtypes import result_type, to_torch
from backends.torch.ops.straight import STRAIGHT
from backends.torch.plan import NOTHING, Step
from backends.torch.table import OPS, Site, bind
from ir.errors import BackendError

STRAIGHT_KEY = "quant:straight"  # no attribute of a function can have this name


@dataclass(frozen=True)
class Settings:
    """What every step of an executor shares."""

    functions: Mapping[tuple[str, str, str], ir.Function]
    float32: torch.dtype
    device: str


@dataclass
class Program:
    """Steps in order, slot numbers of every named value, and the constants they read."""

    settings: Settings
    outer: Program | None = None
    outer_scope: dict[ir.Value, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    types: list[ir.DataType | None] = field(default_factory=lambda: [None])
    names: dict[str, int] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    constants: dict[int, ir.Value] = field(default_factory=dict)
    captured: dict[int, ir.Value] = field(default_factory=dict)
    scope: dict[ir.Value, int] = field(default_factory=dict)
    inner_names: dict[str, int] = field(default_factory=dict)  # value in a body -> its step

    def new_slot(self, code: ir.DataType | None = None) -> int:
        self.types.append(code)
        return len(self.types) - 1

    def add_graph(self, graph: ir.Graph, opset: int) -> None:
        """Compile `graph` (main graph or body) into this program."""
        for value in graph.inputs:
            slot = self.declare(value)
            self.inputs.append(slot)
            if value.name and value.name in graph.initializers:
                self.constants[slot] = graph.initializers[value.name]
        if self.outer is None:
            for value in graph.initializers.values():
                self.slot(value, self.scope)
        for node in graph:
            self.add_node(node, self.scope, {}, opset)
        self.outputs = [self.slot(value, self.scope) for value in graph.outputs]

    def declare(self, value: ir.Value, code: ir.DataType | None = None) -> int:
        slot = self.new_slot(value.dtype if value.dtype is not None else code)
        self.scope[value] = slot
        if value.name:
            self.names[value.name] = slot
        return slot

    def slot(self, value: ir.Value | None, scope: dict[ir.Value, int]) -> int:
        """The slot a reader of `value` reads; reaches constants and outer values on demand."""
        if value is None or not value.name:
            return NOTHING
        if value in scope:
            return scope[value]
        if self.outer is not None and scope is self.scope:
            slot = self.declare(value, self.outer.types[self.outer.slot(value, self.outer_scope)])
            self.captured[slot] = value
            return slot
        if value.const_value is None or value.producer() is not None:
            raise BackendError("a value is read that nothing computes", at=value)
        slot = self.declare(value, value.const_value.dtype)
        scope[value] = slot
        self.constants[slot] = value
        return slot

    def add_node(
        self, node: ir.Node, scope: dict[ir.Value, int], caller: Mapping[str, Any], opset: int
    ) -> None:
        """Append the steps of one node; `caller` holds the attributes of the function call."""
        attrs = attributes(node, caller)
        ins = tuple(self.slot(value, scope) for value in node.inputs)
        function = self.settings.functions.get(node.op_identifier())
        if function is not None:
            self.inline(node, function, ins, attrs, scope)
            return
        types = tuple(self.types[slot] for slot in ins)
        site = Site(
            node, opset, types, self.settings.float32, self.settings.device, STRAIGHT_KEY in caller
        )
        if node.op_type in CONTROL and node.domain == "":
            fn, ins = self.control(node, ins, attrs, opset, scope)
        else:
            fn = implementation(site, attrs)
        code = result_type(node.op_type, types, attrs) if node.domain == "" else None
        outs = tuple(self.define(v, scope, code) for v in node.outputs)
        entry = OPS.get(node.op_type)
        self.steps.append(Step(fn, ins, outs, node, entry.random if entry else False))
        if isinstance(fn, Control):
            for name in fn.names():
                self.inner_names.setdefault(name, len(self.steps) - 1)

    def define(self, value: ir.Value, scope: dict, code: ir.DataType | None) -> int:
        if not value.name:
            return NOTHING
        if scope is self.scope:
            return self.declare(value, code)
        scope[value] = self.new_slot(value.dtype if value.dtype is not None else code)
        return scope[value]

    def inline(
        self, node: ir.Node, function: ir.Function, ins: tuple, attrs: dict, scope: dict
    ) -> None:
        """Compile a call of a model-local function as its body over the caller's slots."""
        inner: dict[ir.Value, int] = dict.fromkeys(function.inputs, NOTHING)
        inner.update(zip(function.inputs, ins, strict=False))
        given = {**attributes(function, {}), **attrs}
        if node.domain == "quant":
            given[STRAIGHT_KEY] = True
        for body_node in function:
            self.add_node(body_node, inner, given, function.opset_imports.get("", 25))
        for value, result in zip(node.outputs, function.outputs, strict=False):
            if value.name:
                slot = self.slot(result, inner)
                scope[value] = slot
                if scope is self.scope:
                    self.names[value.name] = slot

    def control(
        self, node: ir.Node, ins: tuple[int, ...], attrs: dict, opset: int, scope: dict
    ) -> tuple[Control, tuple[int, ...]]:
        bodies, captures = {}, []
        for name, graph in attrs.items():
            if isinstance(graph, ir.Graph):
                body = Program(self.settings, outer=self, outer_scope=scope)
                body.add_graph(graph, opset)
                bodies[name] = body
                captures.extend(self.slot(v, scope) for v in body.captured.values())
        rest = {name: v for name, v in attrs.items() if name not in bodies}
        return CONTROL[node.op_type](node, len(ins), bodies, rest), ins + tuple(captures)


def attributes(node: Any, caller: Mapping[str, Any]) -> dict[str, Any]:
    """A node's attributes as plain values: numbers, text, tuples, tensors, graphs."""
    plain = {}
    for name, attr in node.attributes.items():
        if attr.is_ref():
            if attr.ref_attr_name in caller:
                plain[name] = caller[attr.ref_attr_name]
        elif attr.value is not None:
            value = attr.value
            plain[name] = tuple(value) if isinstance(value, list) else value
    return plain


def implementation(site: Site, attrs: dict[str, Any]) -> Callable[..., Any]:
    """Our own function of the op if there is one, else its ONNX body or ONNX Runtime."""
    node = site.node
    strings = ir.DataType.STRING in site.types
    entry = None
    if node.domain == "" and not strings:
        entry = (site.straight and STRAIGHT.get(node.op_type)) or OPS.get(node.op_type)
    if entry is None:
        return fallback.Fallback(site, attrs)
    return bind(entry, attrs, site)


def load(value: ir.Value, settings: Settings) -> Any:
    """An initializer as a torch tensor: a view of its numpy memory unless a cast is asked for."""
    if value.const_value is None:
        raise BackendError("an initializer has no data", at=value)
    tensor = to_torch(value.const_value.numpy(), settings.device)
    if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.float32:
        return tensor.to(settings.float32)
    return tensor
