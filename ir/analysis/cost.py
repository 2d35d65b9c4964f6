"""What a graph costs: multiply-accumulates, bytes of weights and activations, nonlinearities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir
from onnx_ir.passes.common import InlinePass

from ir import ops
from ir.analysis import idioms, macs, shapes, traffic
from ir.errors import PassError
from ir.graph import QUANT_DOMAIN, Graph, Node, Value, clone, constant, scalar

NONLINEAR = frozenset(
    (  # noqa: SIM905
        "Relu LeakyRelu PRelu Elu Celu Selu Sigmoid HardSigmoid HardSwish Swish Mish Tanh "
        "Gelu Erf Exp Log Sqrt Reciprocal Pow Softplus Softsign Softmax LogSoftmax Hardmax "
        "Clip ThresholdedRelu Sin Cos LayerNormalization RMSNormalization "
        "InstanceNormalization GroupNormalization LpNormalization MaxPool Max Min Abs"
    ).split()
)
"""Ops counted per scalar they put out (`ReLU6` is Clip between 0 and 6, `Relu` is never a Clip)."""
_CODES = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class Row:
    """One node, or one idiom counted as the one op it is.

    macs and nonlinear are totals over all `times` the node runs (a Loop of known trip count);
    weight_bytes and activation_bytes are of one run: constants read here first, results written.
    """

    name: str
    op_type: str
    macs: int
    weight_bytes: int
    activation_bytes: int
    nonlinear: int
    times: int = 1
    bops: int = 0
    """macs times the bits of both operands, 16 for float (see traffic.py)."""


@dataclass(frozen=True)
class Cost:
    """Rows in graph order and their totals; bytes are as stored (4 bits count half a byte)."""

    rows: tuple[Row, ...]
    macs: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    nonlinear: dict[str, int] = field(default_factory=dict)
    bops: int = 0


def cost(graph: Graph, binding: Mapping[str, int] | None = None) -> Cost:
    """The cost of one run, with `binding` of symbolic dims to numbers (`{"batch": 1}`).

    Multiply-accumulates of Conv, ConvTranspose, MatMul, Gemm, Einsum, Attention and recurrent
    ops; scalars through each nonlinearity, an idiom once under its standard name. Encode, Decode
    and Scale and the Q/DQ ops count nothing, so quantizing a graph leaves both figures alone. Of
    an If the dearer branch counts; a Loop of unknown trip count counts once.

    Raises PassError naming the symbol a needed dim depends on when it is not bound.
    """
    numbered = _numbered(graph, dict(binding or {}))
    counter = _Counter(numbered, dict(binding or {}))
    rows = tuple(counter.graph(numbered.graph, 1))
    nonlinear: Counter[str] = Counter()
    for row in rows:
        if row.nonlinear:
            nonlinear[row.op_type] += row.nonlinear
    return Cost(
        rows,
        sum(r.macs for r in rows),
        sum(r.weight_bytes for r in rows),
        sum(r.activation_bytes for r in rows),
        dict(nonlinear),
        sum(r.bops for r in rows),
    )


def _numbered(graph: Graph, binding: dict[str, int]) -> Graph:
    """The graph with functions inlined and shapes known; the caller's own graph when it is so."""
    calls = any(map(_spelled, graph.functions.values()))
    values = [v for node in graph.graph for v in node.outputs]
    if not calls and all(_known(v, binding) for v in values):
        return graph
    own = clone(graph)
    if calls:
        InlinePass(criteria=_spelled)(own)
    for value in own.graph.inputs:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([_bind(dim, binding) for dim in value.shape])
    for node in own.graph:
        for value in node.outputs:
            if not _known(value, binding):
                value.shape = None  # an exporter's symbol of its own: inferred from the numbers
    return shapes.infer(own)


def _spelled(function: onnx_ir.Function) -> bool:
    """Whether a function's cost is that of its body: not of codes, which kernels absorb."""
    return function.domain != QUANT_DOMAIN or function.name in ops.MAPS


def _known(value: Value, binding: dict[str, int]) -> bool:
    """Whether every dim is a number, or bound to one."""
    return value.shape is not None and all(
        isinstance(_bind(dim, binding), int) for dim in value.shape
    )


def _bind(dim: int | onnx_ir.SymbolicDim, binding: dict[str, int]) -> int | onnx_ir.SymbolicDim:
    if isinstance(dim, onnx_ir.SymbolicDim) and dim.value in binding:
        return binding[str(dim.value)]
    return dim


class _Counter:
    """Walks graphs in order; every weight counts where it is read first."""

    def __init__(self, graph: Graph, binding: dict[str, int]) -> None:
        self.binding = binding
        self.seen: set[int] = set()
        self.last: dict[int, idioms.Idiom] = {}
        self.inner: set[int] = set()
        for idiom in idioms.find(graph):
            if idiom.kind in ("Attention", "RotaryEmbedding", "Identity"):
                continue  # their products and softmax count as what they are
            ends = {id(v.producer()) for v in idiom.outputs}
            for node in idiom.nodes:
                if id(node) in ends:
                    self.last[id(node)] = idiom
                else:
                    self.inner.add(id(node))

    def graph(self, graph: onnx_ir.Graph, times: int) -> list[Row]:
        rows: list[Row] = []
        for node in graph:
            rows.append(self.node(node, times))
            rows += self.bodies(node, times)
        return rows

    def bodies(self, node: Node, times: int) -> list[Row]:
        bodies = [
            a.as_graph() for a in node.attributes.values() if a.type == onnx_ir.AttributeType.GRAPH
        ]
        if not bodies:
            return []
        runs = times * self.trips(node)
        return max((self.graph(b, runs) for b in bodies), key=_weight_of)

    def trips(self, node: Node) -> int:
        if node.op_type == "Loop":
            return max(1, int(scalar(node.inputs[0]) or 1))
        if node.op_type == "Scan" and node.inputs:
            axes = node.attributes.get("scan_input_axes")
            last = node.inputs[-1]
            return self.dims(last)[axes.as_ints()[-1] if axes else 0] if last else 1
        return 1

    def node(self, node: Node, times: int) -> Row:
        idiom = self.last.get(id(node))
        op_type = idiom.kind if idiom else _name(node)
        free = node.domain == QUANT_DOMAIN or node.op_type in _CODES
        weight_bytes = sum(self.first_read(v) for v in node.inputs)
        nonlinear = multiplied = 0
        if not free and id(node) not in self.inner:
            base = idiom.kind if idiom else node.op_type
            if base in NONLINEAR and node.domain in ("", "ai.onnx"):
                nonlinear = self.elements(node.outputs[0])
            if idiom is None:
                multiplied = macs.of(node, self.dims)
        written = (
            0 if id(node) in self.inner else sum(self.bytes(v) for v in node.outputs if v.name)
        )
        name = node.name or (node.outputs[0].name if node.outputs else "") or ""
        return Row(
            name, op_type, multiplied * times, weight_bytes, written, nonlinear * times, times,
            traffic.bit_operations(node, multiplied * times),
        )  # fmt: skip

    def first_read(self, value: Value | None) -> int:
        tensor = constant(value)
        if tensor is None or id(value) in self.seen:
            return 0
        self.seen.add(id(value))
        return int(tensor.nbytes)

    def dims(self, value: Value) -> tuple[int, ...]:
        return shapes.bound(value, self.binding)

    def elements(self, value: Value) -> int:
        return math.prod(self.dims(value))

    def bytes(self, value: Value) -> int:
        """Bytes of one result; 0 where the data decides its size (NonZero) or it is no tensor."""
        if value.shape is None or value.dtype is None or value.dtype.value == 8:
            return 0
        try:
            return math.ceil(self.elements(value) * value.dtype.bitwidth / 8)
        except PassError:
            if self.unbound_input(value):
                raise
            return 0

    def unbound_input(self, value: Value) -> bool:
        """Whether the value's dims name a symbol a user could bind; the engine's are `_d<n>`."""
        symbols = [s for d in value.shape or () if isinstance(d, onnx_ir.SymbolicDim)
                   for s in (d.free_symbols() if d.value is not None else ())]  # fmt: skip
        return any(not s.startswith("_d") and s not in self.binding for s in symbols)


def _weight_of(rows: list[Row]) -> tuple[int, int]:
    return sum(r.macs for r in rows), sum(r.nonlinear for r in rows)


def _name(node: Node) -> str:
    """The op, with Clip(0, 6) named ReLU6 so that it is never mistaken for another Clip."""
    if node.op_type == "Clip" and idioms.activations.clips_0_6(node):
        return "ReLU6"
    return node.op_type
