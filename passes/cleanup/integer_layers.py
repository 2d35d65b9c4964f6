"""What a quantized node computes, said in floats: one rule per operator, for `dequantize`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_ir

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, constant

NOT_NEGATIVE = frozenset(["Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Abs"])


def _limits(kind: np.dtype) -> tuple[int, int]:
    info = ml_dtypes.iinfo(kind)
    return int(info.min), int(info.max)


class Unreadable(Exception):
    """The node's numbers cannot be told; its text says why."""


class Reals:
    """For every value of codes, the float value that it stands for."""

    def __init__(self, edit: Edit) -> None:
        self.edit = edit
        self.known: dict[Value, Value] = {}
        self.unnamed: set[Value] = set()
        """Values made here that have not taken the name of what they stand for."""

    def of(self, codes: Value | None, scale: Value | None, zero: Value | None, axis=None) -> Value:
        """The float behind codes: known, or decoded now when they are constant."""
        if codes is None:
            raise Unreadable("an input is missing")
        if codes in self.known:
            return self.known[codes]
        numbers, size = array(codes), array(scale)
        if numbers is None or size is None:
            raise Unreadable(f"%{codes.name} is neither constant nor computed from floats here")
        return self.constant(decode(numbers, size, array(zero), axis), codes)

    def constant(self, numbers: np.ndarray, codes: Value) -> Value:
        return self.edit.constant(numbers.astype(np.float32), f"{codes.name}.real")

    def cut(self, node: Node, x: Value, scale: Value | None, zero: Value | None) -> Value:
        """x as far as the codes can say it, where their range begins at zero."""
        step, origin = array(scale), array(zero)
        maker = x.producer()
        if step is None or step.size != 1 or (zero is not None and origin is None):
            return x
        kind = np.dtype(np.uint8) if origin is None else origin.dtype
        lowest, highest = (int(m) for m in (_limits(kind)))
        start = 0 if origin is None else int(origin.reshape(()))
        if start != lowest or (maker is not None and maker.op_type in NOT_NEGATIVE):
            return x
        top = (highest - start) * float(step.reshape(()))
        if abs(top - 6) < 1e-3:
            ends = [self.edit.constant(np.array(n, np.float32), f"{x.name}.end") for n in (0, 6)]
            made = self.edit.node("Clip", [x, *ends], like=f"{x.name}.cut", before=node)
        else:
            made = self.edit.node("Relu", [x], like=f"{x.name}.cut", before=node)
        made.outputs[0].type, made.outputs[0].shape = x.type, x.shape
        return made.outputs[0]

    def make(self, node: Node, op: str, inputs: list, count: int = 1, **attributes) -> Node:
        """A float node beside `node`, its outputs typed after that node's."""
        like = f"{node.outputs[0].name}.real"
        made = self.edit.node(op, inputs, like=like, outputs=count, before=node, **attributes)
        for new, old in zip(made.outputs, node.outputs, strict=False):
            new.type, new.shape = onnx_ir.TensorType(onnx_ir.DataType.FLOAT), old.shape
            self.unnamed.add(new)
        return made


def decode(
    codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int | None = None,
    block: int = 0,
) -> np.ndarray:  # fmt: skip
    """(codes - zero) * scale, one scale per index of `axis`, or per `block` indices of it."""
    parts = []
    for part in (scale, np.zeros((), np.float32) if zero is None else zero):
        part = part.astype(np.float32)
        if block:
            place = (axis or 0) % codes.ndim
            part = np.repeat(part, block, place).take(range(codes.shape[place]), place)
        elif part.size > 1:
            place = (axis or 0) % codes.ndim
            part = part.reshape([-1 if i == place else 1 for i in range(codes.ndim)])
        else:
            part = part.reshape(())
        parts.append(part)
    return (codes.astype(np.float32) - parts[1]) * parts[0]


Rule = Callable[[Node, Reals], list[Value]]
"""`rule(node, reals)`: the float values that the node's outputs stand for."""


def _conv(node: Node, reals: Reals) -> list[Value]:
    x = reals.of(*node.inputs[:3])
    weight = reals.of(*node.inputs[3:6], axis=0)
    bias = node.inputs[8] if len(node.inputs) > 8 else None
    inputs = [x, weight, *([_bias(node, bias, 1, 4, reals)] if bias is not None else [])]
    return [reals.make(node, "Conv", inputs, **_plain(node)).outputs[0]]


def _bias(node: Node, bias: Value, first: int, second: int, reals: Reals) -> Value:
    """int32 bias times the scales of input and weight."""
    numbers = [array(v) for v in (bias, node.inputs[first], node.inputs[second])]
    if any(n is None for n in numbers):
        raise Unreadable("its bias or scales are computed at run time")
    whole, one, two = numbers
    return reals.constant(whole.astype(np.float64) * np.ravel(one) * np.ravel(two), bias)  # type: ignore[union-attr,operator,arg-type]


def _matmul(node: Node, reals: Reals) -> list[Value]:
    return [
        reals.make(
            node, "MatMul", [reals.of(*node.inputs[:3]), reals.of(*node.inputs[3:6], axis=-1)]
        ).outputs[0]
    ]


def _gemm(node: Node, reals: Reals) -> list[Value]:
    axis = 0 if attribute(node, "transB", 0) else 1
    inputs = [reals.of(*node.inputs[:3]), reals.of(*node.inputs[3:6], axis=axis)]
    bias = node.inputs[6] if len(node.inputs) > 6 else None
    if bias is not None:
        inputs.append(_bias(node, bias, 1, 4, reals))
    return [reals.make(node, "Gemm", inputs, **_plain(node)).outputs[0]]


def _two(op: str) -> Rule:
    return lambda node, reals: [
        reals.make(node, op, [reals.of(*node.inputs[:3]), reals.of(*node.inputs[3:6])]).outputs[0]
    ]


def _one(op: str) -> Rule:
    def rule(node: Node, reals: Reals) -> list[Value]:
        kept = _plain(node)
        if kept.pop("channels_last", 0):
            raise Unreadable("its channels are last")
        kept.pop("opset", None)
        return [reals.make(node, op, [reals.of(*node.inputs[:3])], **kept).outputs[0]]

    return rule


def _concat(node: Node, reals: Reals) -> list[Value]:
    parts = [reals.of(*node.inputs[i : i + 3]) for i in range(2, len(node.inputs), 3)]
    return [reals.make(node, "Concat", parts, **_plain(node)).outputs[0]]


def _mover(node: Node, reals: Reals) -> list[Value]:
    """Ops that only move entries do to the floats what they do to the codes."""
    if node.op_type == "Concat":
        if not all(value in reals.known for value in node.inputs):
            raise Unreadable("not all its parts are codes of known floats")
        inputs: list = [reals.known[value] for value in node.inputs]  # type: ignore[index]
    else:
        inputs = [reals.known[node.inputs[0]], *node.inputs[1:]]  # type: ignore[index]
    made = reals.make(node, node.op_type, inputs, len(node.outputs), **_plain(node))
    return list(made.outputs)


def _plain(node: Node) -> dict:
    return {name: found.value for name, found in node.attributes.items()}


MOVERS = frozenset(
    ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split",
     "Identity", "MaxPool", "Expand", "Concat")
)  # fmt: skip
RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    ("com.microsoft", "QLinearConv"): _conv,
    ("com.microsoft", "QGemm"): _gemm,
    ("com.microsoft", "QLinearAdd"): _two("Add"),
    ("com.microsoft", "QLinearMul"): _two("Mul"),
    ("com.microsoft", "QLinearSigmoid"): _one("Sigmoid"),
    ("com.microsoft", "QLinearLeakyRelu"): _one("LeakyRelu"),
    ("com.microsoft", "QLinearAveragePool"): _one("AveragePool"),
    ("com.microsoft", "QLinearGlobalAveragePool"): _one("GlobalAveragePool"),
    ("com.microsoft", "QLinearSoftmax"): _one("Softmax"),
    ("com.microsoft", "QLinearConcat"): _concat,
    **{("", op): _mover for op in MOVERS},
}


WRITTEN = {"QGemm": (7, 8), "QLinearConcat": (0, 1)}
"""Where a rule's node has the scale and the zero of its output, when that is not the default:"""
WRITTEN |= dict.fromkeys(("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"), (6, 7))
UNARY = (3, 4)


def written(node: Node) -> tuple[Value | None, Value | None]:
    """Scale and zero of the codes that a rule's node writes; no scale: it writes floats."""
    places = WRITTEN.get(node.op_type, UNARY)
    scale, zero = (node.inputs[i] if i < len(node.inputs) else None for i in places)
    return scale, zero


@dataclass
class Scaled:
    """What stands behind an integer product: its last node, the factors, the bias in floats."""

    last: Node
    factors: list[Value] = field(default_factory=list)
    bias: Value | None = None


def product(node: Node, reals: Reals) -> tuple[Node, Value]:
    """MatMulInteger or ConvInteger with its Cast and scales: (the last node, its value in floats).

    y = Cast(x_codes @ w_codes [+ Cast(b / (x_scale * w_scale))]) * (x_scale * w_scale), the
    products in either order.
    """
    x, codes = node.inputs[:2]
    if x is None or codes is None or x not in reals.known or constant(codes) is None:
        raise Unreadable("its input does not come from floats, or its weight is not constant")
    found = _scaled(node)
    scales = [array(v) for v in found.factors if constant(v) is not None]
    alone = len(scales) == len(found.factors) - 1
    if not alone or not any(v in _scales_of(x) for v in found.factors):
        raise Unreadable("its scales are not applied to it alone, or in an unusual way")
    zero = array(node.inputs[3]) if len(node.inputs) > 3 else None
    conv = node.op_type == "ConvInteger"
    weight = decode(array(codes), np.ones((), np.float32), zero, 0 if conv else -1)  # type: ignore[arg-type]
    for scale in scales:
        weight = weight * _laid(scale, weight, conv)  # type: ignore[arg-type]
    inputs = [reals.known[x], reals.constant(weight, codes)]
    bias = found.bias
    if conv and bias is not None:
        inputs.append(reals.constant(array(bias).reshape(-1), bias))  # type: ignore[union-attr]
    made = reals.make(found.last, "Conv" if conv else "MatMul", inputs, **_plain(node))
    if not conv and bias is not None:
        made = reals.make(found.last, "Add", [made.outputs[0], bias])
    return found.last, made.outputs[0]


def _scaled(node: Node) -> Scaled:
    found = Scaled(node)
    while True:
        uses = list(found.last.outputs[0].uses())
        if len(uses) != 1 or found.last.outputs[0].is_graph_output() or len(found.factors) > 1:
            return found
        reader, index = uses[0].node, uses[0].idx
        if reader.domain or reader.op_type not in ("Cast", "Mul", "Add"):
            return found
        if reader.op_type == "Mul":
            found.factors += _factors(reader.inputs[1 - index])
        elif reader.op_type == "Add":
            found.bias = None if found.factors else _whole_bias(reader.inputs[1 - index])
            if found.bias is None:
                return found
        found.last = reader


def _whole_bias(value: Value | None) -> Value | None:
    """The float constant b of Cast(Floor(b / scale)): a bias in units of the product's step."""
    maker = value.producer() if value is not None else None
    while maker is not None and maker.op_type in ("Reshape", "Cast", "Floor", "Round", "Ceil"):
        value = maker.inputs[0]
        maker = value.producer() if value is not None else None
    if maker is None or maker.domain or maker.op_type != "Div":
        return None
    return maker.inputs[0] if constant(maker.inputs[0]) is not None else None


def _factors(value: Value | None) -> list[Value]:
    """A product of scales as its factors."""
    maker = value.producer() if value is not None else None
    if maker is not None and not maker.domain and maker.op_type == "Mul":
        return [factor for v in maker.inputs for factor in _factors(v)]
    if maker is not None and maker.op_type in ("Reshape", "Unsqueeze", "Squeeze", "Identity"):
        return _factors(maker.inputs[0])
    return [value] if value is not None else []


def _scales_of(codes: Value) -> list[Value]:
    """Values that hold the scale of a quantizer's codes."""
    maker = codes.producer()
    while maker is not None and maker.op_type in MOVERS:
        maker = maker.inputs[0].producer() if maker.inputs[0] is not None else None
    if maker is None:
        return []
    if maker.op_type == "DynamicQuantizeLinear":
        return [maker.outputs[1]]
    return [v for v in maker.inputs[1:2] if v is not None]


def _laid(scale: np.ndarray, weight: np.ndarray, conv: bool) -> np.ndarray:
    """A scale per output, or one, so that it multiplies the weight."""
    if scale.size == 1:
        return scale.reshape(())
    outputs = weight.shape[0] if conv else weight.shape[-1]
    if scale.size != outputs:
        raise Unreadable("its scale is not one per output")
    return scale.reshape(-1, *[1] * (weight.ndim - 1)) if conv else scale.reshape(-1)
