"""The only code that mutates a graph: every change keeps names, uses and provenance right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir
from onnx_ir.passes.common import InlinePass

from . import online_hadamard, ops
from .capture.canonical import lift_constants
from .capture.infer import infer_quietly
from .capture.names import fix_names
from .graph import BY, QUANT_DOMAIN, Graph, Names, Node, Value, graphs
from .qtype import QType


class Edit:
    """One step's changes to one graph: `by` is stamped on new nodes, `changes` counts all.

    A value that takes another's place takes its name as well: the name says what the value means.
    """

    def __init__(self, graph: Graph, by: str = "") -> None:
        self.graph = graph
        self.by = by
        self.changes = 0
        self.names = Names(graph)
        self._bodies: set[onnx_ir.Graph] | None = None
        self._counts: Counter[str] | None = None
        self._factors: dict[tuple, list[Value]] = {}

    # -- making ---------------------------------------------------------------------------------

    def constant(
        self, data: np.ndarray | onnx_ir.TensorProtocol, name: str, *, at: Node | None = None
    ) -> Value:
        """A new initializer of the main graph (visible in every body).

        `at` is the node that will read it, or whose place it takes: inside a local function, which
        sees no initializer, a Constant node is put before it instead.
        """
        tensor = _tensor(data) if isinstance(data, np.ndarray) else data
        self.changes += 1
        if at is not None and at.graph in self._function_bodies():
            node = onnx_ir.node("Constant", [], {"value": tensor})
            node.outputs[0].name = self.names.fresh(name)
            node.outputs[0].type = onnx_ir.TensorType(tensor.dtype)
            node.outputs[0].shape = onnx_ir.Shape(tensor.shape.numpy())
            node.name = self.names.fresh(f"{name}:Constant")
            self.place(node, before=at)
            return node.outputs[0]
        value = onnx_ir.val(
            self.names.fresh(name),
            tensor.dtype,
            onnx_ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.graph.graph.register_initializer(value)
        return value

    def _function_bodies(self) -> set[onnx_ir.Graph]:
        """The graphs of every local function, with the bodies inside them."""
        if self._bodies is None:
            functions = [f.graph for f in self.graph.functions.values()]
            self._bodies = {g for top in functions for g in (top, *top.subgraphs())}
        return self._bodies

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        *,
        like: str,
        outputs: int = 1,
        domain: str = "",
        before: Node | None = None,
        after: Node | None = None,
        behind: Value | None = None,
        **attributes,
    ) -> Node:
        """A new node, its outputs named after `like`, put where `place` says."""
        values = [onnx_ir.val(self.names.fresh(like)) for _ in range(outputs)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        node = onnx_ir.node(op, inputs, kept, domain=domain, outputs=values)
        node.name = self.names.fresh(f"{like}:{op}")
        self.place(node, before=before, after=after, behind=behind)
        return node

    def quant(
        self, op: str, qtype: QType, inputs: Sequence[Value], *, like: str,
        before: Node | None = None, after: Node | None = None, behind: Value | None = None,
    ) -> Node:  # fmt: skip
        """A new Encode, Decode or Scale node; its function is defined by `finish`."""
        node = ops.make(op, qtype, list(inputs), self.names, like)
        self.place(node, before=before, after=after, behind=behind)
        return node

    def hadamard(
        self, value: Value, *, like: str, block: int = 0, before: Node | None = None
    ) -> Node:
        """A Hadamard transform of the last axis (of its blocks) that stays in the graph, before a
        node or behind what makes the value.

        ValueError where the order has no matrix (`ir.hadamard.refusal`).
        """
        order = block or int(value.shape[-1])  # type: ignore[index,arg-type]
        kind = None if value.dtype is None else value.dtype.numpy()
        if (order, kind) not in self._factors:
            found = online_hadamard.factors(order, kind)
            self._factors[order, kind] = [self.constant(f, f"hadamard{len(f)}") for f in found]
        node = online_hadamard.make(value, self._factors[order, kind], self.names, like)
        self.place(node, before=before, behind=None if before is not None else value)
        return node

    def turn(self, value: Value, matrix: np.ndarray, *, like: str) -> Node:
        """The last axis of a value times an orthogonal matrix [n, n], which stays float in the
        graph: a Hadamard op of one factor, which need not be a Hadamard matrix."""
        held = self.constant(matrix.astype(np.float32), f"{value.name}.matrix")
        node = online_hadamard.make(value, [held], self.names, like)
        self.place(node, behind=value)
        return node

    def place(
        self, node: Node, *, before: Node | None = None, after: Node | None = None,
        behind: Value | None = None,
    ) -> None:  # fmt: skip
        """Put a node into the graph of its neighbour (the main graph's front without one).

        behind: a value that it reads: next to what makes it, else first in its graph.
        """
        if self.by:
            node.metadata_props[BY] = self.by
        if behind is not None:
            after = behind.producer()
            if after is None and behind.graph is not None:
                before = behind.graph[0]
        if before is not None:
            before.graph.insert_before(before, node)  # type: ignore[union-attr]
        elif after is not None:
            after.graph.insert_after(after, node)  # type: ignore[union-attr]
        elif len(self.graph.graph):
            self.graph.graph.insert_before(self.graph.graph[0], node)
        else:
            self.graph.graph.append(node)
        self.changes += 1

    def unpack(self, body: onnx_ir.Graph, *, after: Node) -> list[Value]:
        """Put a body's nodes, in order, after a node outside of it; what the body returned.

        Two bodies may use one name for different values: such a name is made fresh on the way out.
        """
        counts, nodes, results = self._name_counts(), list(body), list(body.outputs)
        while body.outputs:
            body.outputs.pop()
        for node in nodes:
            node.graph.remove(node)  # type: ignore[union-attr]
            for item in (node, *node.outputs):
                if item.name and counts[item.name] > 1:
                    counts[item.name] -= 1
                    item.name = self.names.fresh(item.name)
        after.graph.insert_after(after, nodes)  # type: ignore[union-attr]
        self.changes += 1
        return results

    def _name_counts(self) -> Counter[str]:
        """How often each name is used, as of the first call; names made since are unique anyway."""
        if self._counts is None:
            nodes = [n for g in graphs(self.graph) for n in g]
            values = [v.name for n in nodes for v in n.outputs if v.name]
            self._counts = Counter([*values, *(n.name for n in nodes if n.name)])
        return self._counts

    # -- rewiring -------------------------------------------------------------------------------

    def replace(self, old: Value, new: Value) -> None:
        """`new` means what `old` meant: it takes its readers, its place as an output, and its name.

        A graph input or an initializer keeps the name it is known by, and `new` its own. The same
        holds when `old` stays in use by `new`'s own producer.
        """
        maker = new.producer()
        own = [(node, i) for node, i in ((u.node, u.idx) for u in old.uses()) if node is maker]
        outputs = old.is_graph_output()
        keeps_name = old.is_graph_input() or old.is_initializer() or new.is_graph_input()
        old.replace_all_uses_with(new, replace_graph_outputs=outputs)
        for node, index in own:
            node.replace_input_with(index, old)
        if new.type is None:
            new.type = old.type
        if new.shape is None:
            new.shape = old.shape
        self.changes += 1
        if (not keeps_name or outputs) and not new.is_initializer() and not own:
            self.take_name(old, new)

    def reuse(self, old: Value, twin: Value) -> None:
        """Readers of `old` read `twin`, which computes the same under its own name."""
        old.replace_all_uses_with(twin)
        self.changes += 1

    def becomes(self, old: Value, data: np.ndarray | onnx_ir.TensorProtocol) -> Value:
        """`old` turned out to be constant: a constant takes its readers and its name.

        Not for graph outputs: a graph cannot return an initializer in every runtime.
        """
        name, old.name = old.name or "constant", None
        new = self.constant(data, f"{name}.now", at=old.producer())
        old.replace_all_uses_with(new)
        old.name = self.names.fresh(f"{name}.was")
        new.name = name
        return new

    def take_name(self, old: Value, new: Value) -> None:
        """`new` means now what `old` meant, and is called so."""
        name, old.name = old.name, self.names.fresh(f"{old.name}.was")
        new.name = name

    def output_instead(self, old: Value, new: Value) -> None:
        """The graph returns `new` in place of `old`, under the name that its caller knows."""
        outputs = old.graph.outputs  # type: ignore[union-attr]
        for index, value in enumerate(outputs):
            if value is old:
                outputs[index] = new
        new.type, new.shape = old.type, old.shape
        self.take_name(old, new)
        self.changes += 1

    def retype(self, value: Value, kind: onnx_ir.DataType) -> None:
        """Declare another element type for a value (a new type: values may share theirs)."""
        if isinstance(value.type, onnx_ir.SequenceType):
            value.type = onnx_ir.SequenceType(onnx_ir.TensorType(kind))
        else:
            value.type = onnx_ir.TensorType(kind)
        self.changes += 1

    def retensor(self, value: Value, data: np.ndarray) -> None:
        """Give an initializer other numbers of the same shape, perhaps of another type."""
        value.const_value = _tensor(data, value.name)
        self.retype(value, value.const_value.dtype)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Let one input of a node read another value."""
        node.replace_input_with(index, value)
        self.changes += 1

    def add_input(self, node: Node) -> None:
        """One more input, absent so far, at the end of a node's list."""
        node.resize_inputs(len(node.inputs) + 1)

    def rename(self, value: Value, wanted: str) -> None:
        """A fresh name, for a value whose meaning a rewrite has changed."""
        value.name = self.names.fresh(wanted)
        self.changes += 1

    def attribute(self, node: Node, name: str, data) -> None:
        """Set or (None) delete an attribute."""
        if data is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = onnx_ir.convenience.convert_attribute(name, data)
        self.changes += 1

    def note(self, node: Node, notes: Mapping[str, str]) -> None:
        """Write annotations (`metadata_props`) on a node."""
        node.metadata_props.update(notes)
        self.changes += 1

    # -- removing -------------------------------------------------------------------------------

    def remove(self, *nodes: Node) -> None:
        """Remove nodes whose outputs nothing reads any more (readers first, then their inputs)."""
        for node in nodes:
            node.graph.remove(node, safe=True)  # type: ignore[union-attr]
            self.changes += 1

    def remove_dead(self, *nodes: Node) -> None:
        """Remove those of the nodes that nothing reads, and then whatever only they kept alive."""
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node.graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
                continue
            makers = [v.producer() for v in node.inputs if v is not None]
            self.remove(node)
            waiting.extend(m for m in makers if m is not None)

    def drop_constant(self, value: Value) -> None:
        """Forget an initializer that nothing reads."""
        if not value.uses() and value.graph is not None and not value.is_graph_output():
            value.graph.initializers.pop(value.name, None)  # type: ignore[arg-type]
            self.changes += 1

    def keep_inputs(self, node: Node, count: int) -> None:
        """Read the first `count` inputs only."""
        node.resize_inputs(count)
        self.changes += 1

    def keep_outputs(self, node: Node, count: int) -> None:
        """Leave out a node's outputs from `count` on, which nothing reads."""
        node.resize_outputs(count)
        self.changes += 1

    def inline_functions(self) -> None:
        """Put the bodies of the local functions, ours apart, where they are called.

        Constants in them become initializers, as everywhere else in a captured graph.
        """
        inline = InlinePass(lambda function: function.domain != QUANT_DOMAIN)
        inline(self.graph)
        for graph in (self.graph.graph, *self.graph.graph.subgraphs()):
            lift_constants(graph)
        for key in [k for k in self.graph.functions if k[0] != QUANT_DOMAIN]:
            self.drop_function(key)
        used = {node.domain for graph in graphs(self.graph) for node in graph}
        for domain in [d for d in self.graph.graph.opset_imports if d and d not in used]:
            del self.graph.graph.opset_imports[domain]
        fix_names(self.graph)
        self.names, self._bodies, self._counts = Names(self.graph), None, None
        self.changes += 1
        self.infer()

    def infer(self) -> None:
        """Write what can be inferred of types and shapes on values that have none yet."""
        infer_quietly(self.graph)

    def drop_function(self, key: tuple[str, str, str]) -> None:
        """Forget a local function that nothing calls."""
        del self.graph.functions[key]
        self.changes += 1

    def finish(self) -> None:
        """Bring the functions of our ops in line with their uses; call once after the changes."""
        ops.define(self.graph)


def _tensor(data: np.ndarray, name: str | None = None) -> onnx_ir.TensorProtocol:
    """A tensor of an array. Of numbers without onnx_ir.tensor(), whose checks of what it was given
    cost more than the tensor itself."""
    if data.dtype.kind in "OSU" or not data.dtype.isnative:
        return onnx_ir.tensor(data, name=name)
    return onnx_ir.Tensor(np.asarray(data, order="C"), name=name)
