"""Linear layers found by structure: MatMul, Gemm and Conv whose weight is a constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir

from ir import ops
from ir.errors import PipelineError
from ir.graph import Graph, Node, Value, attribute, constant, nodes, rank
from ir.qtype import QType

WRITTEN = "quant.written"
"""Metadata of an Encode whose value its kernel writes as codes: floats of it do not exist."""


QUANTIZED = frozenset(
    ("MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm", "MatMulNBits",
     "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention")
)  # fmt: skip
"""Layers that a model brings along in integers."""
WITH_WEIGHTS = frozenset(
    ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN")
)

SOUGHT = "MatMul, Gemm or Conv with a constant weight of two or more axes"


@dataclass(frozen=True)
class Linear:
    """y = x W (+ bias). `inputs` are the axes of W that are summed over, `output` the axis of y's
    channels."""

    node: Node
    x: Value
    weight: Value
    inputs: tuple[int, ...]
    output: int

    @property
    def channel_axis(self) -> int:
        """Axis of x that W contracts (from the front for Conv, from the back otherwise)."""
        return 1 if self.node.op_type == "Conv" else -1

    @property
    def y(self) -> Value:
        return self.node.outputs[0]

    def misfit(self, pattern: QType) -> str:
        """Why the weight cannot carry codes of `pattern`; empty when it can."""
        tensor = constant(self.weight)
        if tensor is not None and tensor.dtype != onnx_ir.DataType.FLOAT:
            return f"its weight is {tensor.dtype.name}: put as_float32 before"
        if tensor is not None and not tensor.size:
            return "its weight is empty"
        return ""

    def qtype(self, pattern: QType) -> QType:
        """`pattern`, written for a K x N matrix, in the layout of this weight.

        Blocks of the inputs of a Conv lie along its input channels, each place of its window by
        itself; a Conv of so few channels that they would fill less than half a block (depthwise,
        the first) has one scale an output in place of them.
        """
        if pattern.per_tensor:
            return pattern
        if len(pattern.block) != 2:
            raise PipelineError(
                f"weight type {pattern} must be written for a K x N matrix",
                hint="two block sizes: along the inputs, along the outputs, as in i8@0x1*f32",
            )
        along, across = pattern.block
        axes = rank(self.weight) or 0
        block = [1] * axes
        for axis in self.inputs:
            block[axis] = along
        if along > 1 and len(self.inputs) > 1:
            few = 2 * int(self.weight.shape[1]) < along  # type: ignore[index,arg-type]
            block[1:] = [0] * (axes - 1) if few else [along, *[1] * (axes - 2)]
        block[self.output] = across
        return QType(pattern.element, tuple(block), pattern.scales, pattern.zero)


def linears(graph: Graph) -> Iterator[Linear]:
    """Every linear layer with a constant floating-point weight (or the codes of one), in order."""
    for node in nodes(graph):
        site = linear(node)
        if site is not None:
            yield site


def linear(node: Node) -> Linear | None:
    """The node as a linear layer, or None."""
    if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.inputs) < 2:
        return None
    x, weight = node.inputs[0], node.inputs[1]
    axes = rank(weight)
    if x is None or weight is None or not axes or axes < 2 or not _constant_weight(weight):
        return None
    if constant(x) is not None or _dequantized(x):
        return None
    if node.op_type == "Conv":
        return Linear(node, x, weight, tuple(range(1, axes)), 0)
    if node.op_type == "Gemm":
        if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0:
            return None
        return Linear(node, x, weight, *(((1,), 0) if attribute(node, "transB", 0) else ((0,), 1)))
    return Linear(node, x, weight, (axes - 2,), axes - 1)


SMALL_TABLE = 4096
"""Tables of fewer numbers stay float: their codes would save less than the nodes cost."""


def tables(graph: Graph) -> Iterator[Linear]:
    """Every lookup of rows of a constant float table [V, D] (an embedding), as a layer whose
    outputs are the rows: K = D numbers of each of N = V share what `i8@0x1` says of a column."""
    for node in nodes(graph):
        if node.domain or node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
            continue
        table, indices = node.inputs[0], node.inputs[1]
        if table is None or indices is None or constant(indices) is not None or rank(table) != 2:
            continue
        tensor = constant(table)
        if tensor is not None and tensor.dtype.is_floating_point():
            yield Linear(node, indices, table, (1,), 0)


def near_miss(node: Node) -> str:
    """Why a node with weights is no linear layer that can carry codes; empty for other nodes."""
    if node.domain not in ("", "com.microsoft") or linear(node) is not None:
        return ""
    if node.op_type in QUANTIZED or any(_dequantized(v) for v in node.inputs[:2]):
        known = node.op_type in QUANTIZED or node.op_type in ("MatMul", "Gemm", "Conv")
        return "it is quantized already: put dequantize before to quantize it anew" if known else ""
    weights = [_holds_weights(value) for value in node.inputs[:3]]
    if not any(weights) or node.op_type not in WITH_WEIGHTS:
        return ""
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return f"{node.op_type} layers are not coded"
    if weights[0]:
        return "its constant is the left factor"
    if node.op_type == "Gemm":
        return "its transA or alpha is not the default: put canonicalize before"
    return "the rank of its weight is unknown"


def _holds_weights(value: Value | None) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > 1


def _dequantized(value: Value | None) -> bool:
    maker = value.producer() if value is not None else None
    return maker is not None and not maker.domain and maker.op_type == "DequantizeLinear"


def _constant_weight(value: Value) -> bool:
    tensor = constant(value)
    if tensor is not None:
        return tensor.dtype.is_floating_point()
    decode, encode = ops.decode_of(value), ops.encode_of(value)
    if decode is None:
        return False
    source = encode.inputs[0] if encode is not None else decode.inputs[0]
    return constant(source) is not None


def bias_of(site: Linear) -> tuple[Node, int] | None:
    """(node, input index) of the constant bias: Conv and Gemm's third input, or the Add behind a
    MatMul."""
    node = site.node
    if node.op_type in ("Conv", "Gemm"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        plain = attribute(node, "beta", 1.0) == 1.0
        return (node, 2) if plain and _per_output(bias, site) else None
    uses = site.y.uses()
    if len(uses) != 1 or site.y.is_graph_output():
        return None
    use = next(iter(uses))
    if use.node.op_type != "Add" or use.node.domain:
        return None
    return (use.node, 1 - use.idx) if _per_output(use.node.inputs[1 - use.idx], site) else None


def _per_output(bias: Value | None, site: Linear) -> bool:
    """Whether a value is a constant with one number per output channel."""
    tensor = constant(bias)
    size = site.weight.shape[site.output] if site.weight.shape is not None else None
    return tensor is not None and tensor.size == size and list(tensor.shape)[-1:] == [size]


def decodes_of(encode: Node) -> list[Node] | None:
    """The Decodes that read an Encode's codes; None when somebody else reads them, too."""
    readers = [use.node for use in encode.outputs[0].uses()]
    alone = all(ops.is_op(node, "Decode") for node in readers)
    return readers if alone and not encode.outputs[0].is_graph_output() else None
