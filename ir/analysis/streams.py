"""Activation channels that writers and readers can share a map on: scale, shift, permutation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ir.analysis import shapes
from ir.analysis.idioms.base import is_op, producer
from ir.graph import Graph, Node, Value, attribute, constant, graphs, rank, readers

Role = Literal["weight", "bias"]


@dataclass(frozen=True, eq=False)
class Port:
    """A constant that a map of the stream folds into.

    tensor's axis runs over the stream's channels. A scale s divides the tensors of the writers and
    multiplies those of the readers; a shift moves the writers' biases alone.
    """

    node: Node
    tensor: Value
    axis: int
    role: Role


@dataclass(frozen=True, eq=False)
class Stream:
    """One activation whose channels are written by some constants and contracted by others.

    value:   the activation the readers see first; axis: its channel axis
    writers: gains, biases and weights that set a channel (all of them take part in a fold)
    readers: weights of the linear layers that contract over the channels
    maps:    which of `scale` (diagonal, positive), `shift` and `permute` can be folded exactly
    blocked: why none can, or None
    """

    value: Value
    axis: int
    writers: tuple[Port, ...]
    readers: tuple[Port, ...]
    maps: frozenset[str]
    blocked: str | None = None


ALL = frozenset({"scale", "shift", "permute"})
_KEEPS = {"Relu": {"scale", "permute"}, "LeakyRelu": {"scale", "permute"}}
_KEEPS |= {"Identity": ALL, "Cast": ALL, "Transpose": ALL, "Reshape": ALL, "Dropout": ALL}
_KEEPS |= {"MaxPool": {"scale", "permute"}, "AveragePool": {"scale", "permute"}}
_KEEPS |= {"GlobalAveragePool": ALL}
Axes = tuple[int, ...]
"""Axes whose row-major flattening is the channel: (1, 3) for heads split off a width."""


def streams(graph: Graph) -> list[Stream]:
    """Every stream that ends in linear layers with constant weights, in graph order.

    Needs inferred shapes. A norm's output read by several linears is one stream; Transpose,
    Identity, Cast, ReLU, pooling, and Reshape that splits or merges heads are passed, as is the
    weighted sum of an attention (v to o) and the ungated operand of a product (up to down).
    """
    done: set[tuple[int, Axes]] = set()
    found = []
    for each in graphs(graph):
        for node in each:
            place = _contraction(node)
            if place is None or place[0] is None:
                continue
            value, axis, _ = place
            if (id(value), (axis,)) in done:
                continue
            walk = _Walk(value, (axis,))
            done |= walk.members
            found.append(walk.stream(value, axis))
    return found


def _contraction(node: Node) -> tuple[Value, int, Port] | None:
    """(activation, its channel axis, weight port) of a linear layer with a constant weight."""
    if not is_op(node, "MatMul", "Gemm", "Conv"):
        return None
    x, w = node.inputs[:2]
    if x is None or w is None or constant(w) is None or constant(x) is not None:
        return None
    size = rank(x)
    if size is None:
        return None
    if node.op_type == "MatMul":
        w_rank = rank(w) or 0
        return (x, size - 1, Port(node, w, w_rank - 2, "weight")) if w_rank >= 2 else None
    if node.op_type == "Gemm":
        transposed = attribute(node, "transB", 0)
        axis = 0 if attribute(node, "transA", 0) else 1
        return x, axis, Port(node, w, 1 if transposed else 0, "weight")
    if attribute(node, "group", 1) == 1:
        return x, 1, Port(node, w, 1, "weight")
    depthwise = shapes.dims(w)[1] == 1 and shapes.dims(x)[1] == attribute(node, "group", 1)  # pyright: ignore
    return (x, 1, Port(node, w, 0, "weight")) if depthwise else None


@dataclass
class _Walk:
    """Collects the values that carry one channel map, from a reader back to all writers."""

    start: Value
    axes: Axes
    members: set[tuple[int, Axes]] = field(default_factory=set)
    writers: list[Port] = field(default_factory=list)
    readers: list[Port] = field(default_factory=list)
    maps: set[str] = field(default_factory=lambda: set(ALL))
    blocked: str | None = None

    def __post_init__(self) -> None:
        pending = deque([(self.start, self.axes)])
        while pending and self.blocked is None:
            value, axes = pending.popleft()
            if (id(value), axes) not in self.members:
                self.members.add((id(value), axes))
                pending.extend(self.write(value, axes))
                pending.extend(self.read(value, axes))

    def stream(self, value: Value, axis: int) -> Stream:
        maps = frozenset() if self.blocked else frozenset(self.maps)
        if "shift" in maps and not any(p.role == "bias" for p in self.writers):
            maps -= {"shift"}
        return Stream(value, axis, tuple(self.writers), tuple(self.readers), maps, self.blocked)

    def block(self, node: Node | None, reason: str) -> None:
        where = f"{node.op_type} '{node.name or node.outputs[0].name}'" if node else "the graph"
        self.blocked = self.blocked or f"{where} {reason}"

    def keep(self, maps: set[str] | frozenset[str]) -> None:
        self.maps &= maps

    def write(self, value: Value, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        """Follow a value to what computes it."""
        node = value.producer()
        if node is None:
            self.block(None, f"feeds %{value.name} from outside")
        elif node.op_type in _KEEPS and is_op(node, *_KEEPS):
            yield from self.pass_back(node, axes)
        elif is_op(node, "Add"):
            yield from self.write_sum(node, axes)
        elif is_op(node, "Mul"):
            yield from self.write_product(node, axes)
        elif is_op(node, "MatMul", "Gemm", "Conv"):
            yield from self.write_linear(node, axes)
        elif is_op(node, "LayerNormalization", "RMSNormalization", "BatchNormalization"):
            self.write_norm(node, axes)
        else:
            self.block(node, "computes the channels in a way no map passes")

    def pass_back(self, node: Node, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        source = node.inputs[0]
        before = _axes_before(node, axes)
        if source is None or before is None:
            self.block(node, "mixes the channels with other axes")
            return
        self.keep(_KEEPS[node.op_type])
        yield source, before

    def write_sum(self, node: Node, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        """A bias is a writer; a residual sum carries the map to both operands."""
        constants = [v for v in node.inputs if constant(v) is not None]
        if not constants:
            self.keep({"scale", "permute"})
        for operand in node.inputs:
            if operand is None:
                continue
            if operand in constants:
                self.port(node, operand, axes, "bias")
            elif shapes.dims(operand) == shapes.dims(node.outputs[0]):
                yield operand, axes
            else:
                self.block(node, "adds a broadcast activation")

    def port(self, node: Node, tensor: Value, axes: Axes, role: Role) -> None:
        """Note a constant aligned at the right with the node's result."""
        size = rank(node.outputs[0])
        shape = shapes.dims(tensor)
        channels = shapes.dims(node.outputs[0])
        place = None if size is None or shape is None else axes[0] - size + len(shape)
        if len(axes) != 1 or shape is None or channels is None or place is None:
            self.block(node, "holds a constant that spreads over split channels")
        elif place < 0 or shape[place] != channels[axes[0]]:
            self.block(node, "holds a constant that is one for all channels")
        else:
            self.writers.append(Port(node, tensor, place, role))

    def write_product(self, node: Node, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        """A constant gain is a writer; of two activations one carries the scale."""
        first, second = node.inputs[:2]
        for gain, operand in ((first, second), (second, first)):
            if gain is not None and operand is not None and constant(gain) is not None:
                self.keep({"scale"})
                self.port(node, gain, axes, "weight")
                return
        for operand in (second, first):
            full = shapes.dims(operand) == shapes.dims(node.outputs[0])
            if operand is not None and full and _leads_to_linear(operand):
                self.keep({"scale"})
                yield operand, axes
                return
        self.block(node, "multiplies two activations, neither straight from a linear layer")

    def write_linear(self, node: Node, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        w = node.inputs[1]
        if node.op_type == "MatMul" and constant(w) is None:
            yield from self.weighted_sum(node, axes)
            return
        if constant(w) is None or w is None or len(axes) != 1:
            self.block(node, "has no constant weight for these channels")
            return
        size = rank(node.outputs[0]) or 0
        channel = 1 if node.op_type in ("Conv", "Gemm") else size - 1
        if axes[0] != channel:
            self.block(node, "is read over another axis than its channels")
            return
        if node.op_type == "Conv":
            axis = 0
            if attribute(node, "group", 1) != 1:
                self.keep({"scale", "shift"})
        else:
            axis = (rank(w) or 2) - 1
            axis = 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else axis
        self.writers.append(Port(node, w, axis, "weight"))
        self.fused_bias(node)

    def fused_bias(self, node: Node) -> None:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            return
        if constant(bias) is None:
            self.block(node, "has a computed bias")
        else:
            self.writers.append(Port(node, bias, (rank(bias) or 1) - 1, "bias"))

    def weighted_sum(self, node: Node, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        """probabilities @ v mixes tokens, not the channels of v."""
        v, size = node.inputs[1], rank(node.outputs[0])
        same = v is not None and rank(v) == size and size is not None
        if not same or size - 2 in axes:  # pyright: ignore[reportOptionalOperand]
            self.block(node, "contracts activations over these channels")
            return
        heads = [a for a in axes if a != size - 1]  # pyright: ignore[reportOptionalOperand]
        if any(shapes.dims(v)[a] != shapes.dims(node.outputs[0])[a] for a in heads):  # pyright: ignore
            self.block(node, "shares heads of v between several of its own")
            return
        if producer(node.inputs[0], "Softmax") is None:
            self.keep({"scale", "permute"})  # only rows that sum to one pass a shift
        if len(axes) > 1:
            self.keep({"scale", "shift"})
        yield v, axes  # pyright: ignore[reportReturnType]

    def write_norm(self, node: Node, axes: Axes) -> None:
        size = rank(node.outputs[0]) or 0
        channel = 1 if node.op_type == "BatchNormalization" else size - 1
        axis = attribute(node, "axis", -1)
        if axes != (channel,) or (
            node.op_type != "BatchNormalization" and axis not in (-1, size - 1)
        ):
            self.block(node, "normalises over another axis")
            return
        self.keep({"scale", "shift"})
        for tensor, role in zip(node.inputs[1:3], ("weight", "bias"), strict=False):
            if tensor is None:
                continue
            if constant(tensor) is None:
                self.block(node, f"has a computed {'gain' if role == 'weight' else role}")
            else:
                self.writers.append(Port(node, tensor, 0, role))  # pyright: ignore[reportArgumentType]

    def read(self, value: Value, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        """Follow a value to whoever reads it; every reader must undo or pass the map."""
        if value.is_graph_output():
            self.block(None, f"puts %{value.name} out")
        for node, index in readers(value):
            yield from self.read_by(node, index, value, axes)

    def read_by(
        self, node: Node, index: int, value: Value, axes: Axes
    ) -> Iterator[tuple[Value, Axes]]:
        place = _contraction(node)
        if node.op_type in ("Shape", "Size"):
            return
        if place is not None and index == 0:
            if axes != (place[1],):
                self.block(node, "contracts over another axis")
                return
            self.readers.append(place[2])
            self.limit_by_reader(node)
        elif index == 0 and node.op_type in _KEEPS and is_op(node, *_KEEPS):
            after = _axes_after(node, axes)
            if after is None:
                self.block(node, "mixes the channels with other axes")
                return
            self.keep(_KEEPS[node.op_type])
            yield node.outputs[0], after
        elif is_op(node, "Add") or (is_op(node, "Mul") and self.carries(node, value, axes)):
            yield node.outputs[0], axes
        elif is_op(node, "MatMul") and index == 1 and constant(node.inputs[0]) is None:
            yield from self.summed(node, axes)
        else:
            self.block(node, "sees the channels unscaled")

    def summed(self, node: Node, axes: Axes) -> Iterator[tuple[Value, Axes]]:
        size = rank(node.outputs[0]) or 0
        if size - 2 in axes or size != rank(node.inputs[1]):
            self.block(node, "contracts activations over these channels")
        else:
            yield node.outputs[0], axes

    def carries(self, node: Node, value: Value, axes: Axes) -> bool:
        """Whether the scale of this operand, and of it alone, goes through the product."""
        return (id(node.outputs[0]), axes) in self.members and sum(
            v is value for v in node.inputs
        ) == 1

    def limit_by_reader(self, node: Node) -> None:
        if node.op_type != "Conv":
            return
        pads = attribute(node, "pads", ()) or ()
        if any(pads) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            self.keep({"scale", "permute"})  # padding zeros are not shifted
        if attribute(node, "group", 1) != 1:
            self.keep({"scale", "shift"})


def _leads_to_linear(value: Value) -> bool:
    """Whether a linear layer computes the value, up to layout, bias and ReLU."""
    current: Value | None = value
    for _ in range(6):
        node = None if current is None else current.producer()
        if is_op(node, "MatMul", "Gemm", "Conv"):
            return constant(node.inputs[1]) is not None  # pyright: ignore[reportOptionalMemberAccess]
        if node is None or not (is_op(node, *_KEEPS) or is_op(node, "Add")):
            return False
        current = next((v for v in node.inputs if v is not None and constant(v) is None), None)
    return False


def _axes_before(node: Node, axes: Axes) -> Axes | None:
    if node.op_type == "Transpose":
        perm = attribute(node, "perm") or tuple(reversed(range(rank(node.outputs[0]) or 0)))
        return tuple(perm[a] for a in axes)
    if node.op_type == "Reshape":
        return _reshaped(node.outputs[0], node.inputs[0], axes)
    return axes


def _axes_after(node: Node, axes: Axes) -> Axes | None:
    if node.op_type == "Transpose":
        perm = list(attribute(node, "perm") or reversed(range(rank(node.outputs[0]) or 0)))
        return tuple(perm.index(a) for a in axes)
    if node.op_type == "Reshape":
        return _reshaped(node.inputs[0], node.outputs[0], axes)
    return axes


def _reshaped(source: Value | None, target: Value | None, axes: Axes) -> Axes | None:
    """The axes of `target` that hold the channels of `source` and nothing else."""
    before, after = shapes.dims(source), shapes.dims(target)
    if before is None or after is None or axes != tuple(range(axes[0], axes[-1] + 1)):
        return None
    head, tail = before[: axes[0]], before[axes[-1] + 1 :]
    stop = len(after) - len(tail)
    known = None not in before and None not in after
    if not known or after[: len(head)] != head or after[stop:] != tail or stop <= len(head):
        return None
    return tuple(range(len(head), stop))
