"""The rules a graph keeps at each stage; the manager checks them after every pass.

One walk over the main graph, its bodies and the local functions: definitions stand before their
reads and inside their scope, names are unique, initializers match their types, ops match their
signatures (`ir.signature`), and codes are read by nobody who takes them for numbers (`ir.coded`).
"""

from __future__ import annotations

import enum

import onnx_ir

from . import coded, online_hadamard, ops, signature
from .errors import VerifyError
from .graph import OPSET, Graph, Node, Value, nodes

_GRAPHS = (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)


class Stage(enum.Enum):
    """What a graph may hold: floats, codes and Decodes, or integer arithmetic only."""

    FLOAT = "float"
    CODED = "coded"
    INTEGER = "integer"


GRAMMAR: dict[Stage, frozenset[str]] = {
    Stage.FLOAT: frozenset(ops.MAPS),
    Stage.CODED: frozenset((*ops.OPS, *ops.MAPS)),
}
"""Which ops of ours a stage allows."""


def stage_of(graph: Graph) -> Stage:
    """CODED when the graph (bodies and functions included) holds an op of codes, else FLOAT."""
    return Stage.CODED if any(ops.is_op(node) for node in nodes(graph)) else Stage.FLOAT


def verify(graph: Graph, stage: Stage | None = None) -> None:
    """Raise VerifyError naming node or value, expected, found and remedy; linear in the graph.

    `stage=None`: the stage is the graph's own (`stage_of`).
    """
    if stage is None:
        stage = Stage.CODED  # a graph without ops of ours keeps its rules, too
    if stage not in GRAMMAR:
        raise VerifyError(
            f"stage {stage.name} has no rules",
            hint=f"ask for {' or '.join(s.name for s in GRAMMAR)}",
        )
    found = graph.opset_imports.get("")
    if found != OPSET:
        raise VerifyError(
            f"the graph is at opset {found}, expected {OPSET}",
            hint="read the model with ir.capture",
        )
    _Walk(graph, stage, graph.opset_imports).body(graph.graph)
    for function in graph.functions.values():
        _Walk(graph, stage, function.opset_imports).body(function.graph)


class _Walk:
    """One namespace: the main graph with its bodies, or a function with its bodies."""

    def __init__(self, model: Graph, stage: Stage, imports: dict[str, int]) -> None:
        self._functions = model.functions
        self._stage = stage
        self._imports = imports
        self._allowed = GRAMMAR[stage]
        self._names: dict[str, Value] = {}
        self._visible: set[Value] = set()
        self._codes = coded.Codes()

    def body(self, graph: onnx_ir.Graph) -> None:
        """Check one graph; what it defined is out of sight again afterwards."""
        own: list[Value] = []
        for value in graph.inputs:
            self._define(value, own)
        inputs = set(graph.inputs)
        for name, value in graph.initializers.items():
            if value.is_graph_input() and value not in inputs:
                raise VerifyError(
                    f"initializer %{name} is marked as a graph input but is none",
                    hint="take inputs away by name (graph.inputs.pop), which clears the mark",
                )
            if value not in inputs:
                self._define(value, own)
            _check_initializer(name, value)
        for node in graph:
            self._node(node, graph)
            for value in node.outputs:
                if value.name != "":
                    self._define(value, own)
        for value in graph.outputs:
            if value not in self._visible:
                raise VerifyError(
                    f"output %{value.name} of graph '{graph.name}' is defined nowhere in it",
                    hint="make a node, input or initializer define it, or drop the output",
                )
        self._visible.difference_update(own)

    def _define(self, value: Value, own: list[Value]) -> None:
        if not value.name:
            raise VerifyError(
                "a value has no name", at=value.producer(), hint="name it with ir.graph.Names.fresh"
            )
        known = self._names.setdefault(value.name, value)
        if known is not value or value in self._visible:
            raise VerifyError(
                f"%{value.name} is defined twice, expected unique names over the model",
                at=value.producer(),
                hint=f"the other is {_origin(known)}; take new names from ir.graph.Names.fresh",
            )
        self._visible.add(value)
        own.append(value)

    def _node(self, node: Node, graph: onnx_ir.Graph) -> None:
        for index, value in enumerate(node.inputs):
            if value is not None and value not in self._visible:
                raise _unseen(node, index, value, graph)
        if ops.is_ours(node):
            self._ours(node)
        else:
            signature.check(node, self._imports, self._functions)
        self._codes.read(node)
        for attribute in node.attributes.values():
            if attribute.type in _GRAPHS and not attribute.is_ref():
                many = attribute.type == onnx_ir.AttributeType.GRAPHS
                for body in attribute.value if many else (attribute.value,):
                    self.body(body)

    def _ours(self, node: Node) -> None:
        if node.op_type not in self._allowed:
            raise VerifyError(
                f"quant.{node.op_type} in a graph of stage {self._stage.name}, which has none",
                at=node,
                hint="a pass that makes codes must say makes=CODED",
            )
        if node.op_identifier() not in self._functions:
            raise VerifyError(
                f"the function of quant.{node.op_type}:{node.overload} is not defined in the model",
                at=node,
                hint="call ir.ops.define(graph)",
            )
        (coded.check if ops.is_op(node) else online_hadamard.check)(node)


def _check_initializer(name: str, value: Value) -> None:
    tensor = value.const_value
    if tensor is None:
        raise VerifyError(
            f"initializer %{name} has no tensor",
            hint="give it a const_value or make it a graph input",
        )
    if value.name != name:
        raise VerifyError(
            f"initializer '{name}' holds the value %{value.name}, expected the same name",
            hint="rename the value, not the key",
        )
    if value.type is not None and value.type != onnx_ir.TensorType(tensor.dtype):
        raise VerifyError(
            f"initializer %{name} is typed {value.type}, its tensor is {tensor.dtype}",
            hint="replace tensor and type together",
        )
    if value.shape is not None and not signature.fits(value.shape, tensor.shape):
        raise VerifyError(
            f"initializer %{name} has shape {value.shape}, its tensor has {tensor.shape}",
            hint="replace tensor and shape together",
        )


def _unseen(node: Node, index: int, value: Value, graph: onnx_ir.Graph) -> VerifyError:
    """Why an input is not defined before its node: asked only once it has failed."""
    what = f"input {index} (%{value.name})"
    producer = value.producer()
    if producer is None or producer.graph is not graph:
        cause = f"{what} is defined nowhere in its scope, found {_origin(value)}"
        hint = "replace the input before removing what computed it"
    elif _reaches(node, producer):
        cause = f"{what} depends on the node's own outputs: a cycle"
        hint = "a graph must be acyclic; use Loop or Scan for feedback"
    else:
        cause = f"{what} is defined later, by {_origin(value)}, expected before"
        hint = "insert nodes before their readers, or call graph.sort()"
    return VerifyError(cause, at=node, hint=hint)


def _reaches(start: Node, goal: Node) -> bool:
    seen, stack = {start}, [start]
    while stack:
        node = stack.pop()
        if node is goal:
            return True
        for value in node.outputs:
            for use in value.uses():
                if use.node not in seen:
                    seen.add(use.node)
                    stack.append(use.node)
    return False


def _origin(value: Value) -> str:
    producer = value.producer()
    if producer is not None:
        place = "" if producer.graph is not None else ", which is in no graph"
        return f"an output of {producer.op_type} '{producer.name}'{place}"
    if value.is_initializer():
        return "an initializer"
    return "a graph input" if value.is_graph_input() else "a value of no graph"
