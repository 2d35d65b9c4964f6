"""One node on constant inputs: numpy for the usual ops, onnx.reference for the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir

from ir.graph import Node, attribute

Arrays = Sequence[np.ndarray | None]

RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
    }
)
"""Ops that draw anew every time."""
NOT_CONSTANT = RANDOM | {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "If",
    "Loop",
    "Scan",
    "SequenceMap",
    "Constant",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "BatchNormalization",
}
"""Never folded: not deterministic, hold codes that a reader wants to see, or hold bodies.

(A BatchNormalization of constants does not occur; in training mode it has side results.)
"""

LAYOUT = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"})
"""Ops that only lay out or convert one tensor: folded at any size, without a copy in memory."""

_BINARY: dict[str, Callable] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Equal": np.equal,
    "Greater": np.greater, "Less": np.less, "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal, "And": np.logical_and, "Or": np.logical_or,
    "Xor": np.logical_xor,
}  # fmt: skip
_UNARY: dict[str, Callable] = {
    "Neg": np.negative, "Abs": np.abs, "Sqrt": np.sqrt, "Floor": np.floor, "Ceil": np.ceil,
    "Exp": np.exp, "Log": np.log, "Not": np.logical_not, "Sin": np.sin, "Cos": np.cos,
    "Reciprocal": lambda x: (1 / x).astype(x.dtype), "Sign": np.sign, "Identity": lambda x: x,
}  # fmt: skip


def dtype_of(data_type: int) -> np.dtype:
    """The numpy type of an ONNX element type."""
    return onnx_ir.DataType(data_type).numpy()


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ONNX Div: whole numbers are cut towards zero."""
    if np.issubdtype(a.dtype, np.integer):
        if not b.all():
            raise ArithmeticError("division by zero")
        quotient = np.floor_divide(a, b)
        return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)
    return np.divide(a, b)


def axes_of(node: Node, arrays: Arrays, at: int = 1) -> tuple[int, ...] | None:
    """Axes given as an input (since opset 13) or as an attribute."""
    if len(arrays) > at and arrays[at] is not None:
        return tuple(int(axis) for axis in np.ravel(arrays[at]))  # type: ignore[arg-type]
    axes = attribute(node, "axes")
    return None if axes is None else tuple(axes)


def target(shape: Sequence[int], wanted: Sequence[int], *, allowzero: bool) -> tuple[int, ...]:
    """The target of a Reshape with its 0 (copy that axis) replaced; -1 is left to numpy."""
    if allowzero:
        return tuple(int(n) for n in wanted)
    return tuple(int(shape[i] if n == 0 else n) for i, n in enumerate(wanted))


def layout(node: Node, x: np.ndarray, arrays: Arrays) -> np.ndarray:
    """A LAYOUT op but Cast: a view of `x` where numpy can make one."""
    match node.op_type:
        case "Transpose":
            return np.transpose(x, attribute(node, "perm"))
        case "Reshape":
            wanted = [int(n) for n in np.ravel(arrays[1])]  # type: ignore[arg-type]
            return x.reshape(target(x.shape, wanted, allowzero=bool(attribute(node, "allowzero"))))
        case "Squeeze":
            axes = axes_of(node, arrays)
            return np.squeeze(x) if axes is None else np.squeeze(x, axes)
        case "Unsqueeze":
            return np.expand_dims(x, axes_of(node, arrays) or ())
        case "Flatten":
            axis = attribute(node, "axis", 1)
            axis += x.ndim if axis < 0 else 0
            return x.reshape(math.prod(x.shape[:axis]), -1)
    return x


def cast(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """ONNX Cast between ordinary numbers. raises: ArithmeticError where runtimes differ."""
    if np.issubdtype(x.dtype, np.floating) and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        if not (np.isfinite(x) & (x >= limits.min) & (x <= limits.max)).all():
            raise ArithmeticError(f"a number does not fit {dtype}")
    return x.astype(dtype)


def _slice(node: Node, arrays: Arrays) -> np.ndarray:
    x, starts, ends, *rest = arrays
    axes = rest[0] if rest and rest[0] is not None else range(len(starts))  # type: ignore
    steps = rest[1] if len(rest) > 1 and rest[1] is not None else [1] * len(starts)  # type: ignore
    index = [slice(None)] * x.ndim  # type: ignore[union-attr]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):  # type: ignore
        index[int(axis)] = slice(int(start), int(end), int(step))  # both clamp as ONNX does
    return x[tuple(index)]  # type: ignore[index]


def _pow(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    return np.power(base, exponent).astype(base.dtype)


def _shape(node: Node, data: np.ndarray) -> np.ndarray:
    return np.array(data.shape[attribute(node, "start", 0) : attribute(node, "end")], np.int64)


def _gather(node: Node, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = attribute(node, "axis", 0)
    if indices.size and not (-x.shape[axis] <= indices.min() <= indices.max() < x.shape[axis]):
        raise ArithmeticError("an index is out of range")
    return np.take(x, indices, axis=axis)


def _range(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    count = max(math.ceil((limit.item() - start.item()) / delta.item()), 0)
    return start + np.arange(count).astype(start.dtype) * delta


def _constant_of_shape(node: Node, arrays: Arrays) -> np.ndarray:
    tensor = attribute(node, "value")
    fill = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
    return np.full(tuple(int(n) for n in arrays[0]), fill.reshape(-1)[0], fill.dtype)  # type: ignore


def _expand(x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(n) for n in shape)))


_OTHERS: dict[str, Callable[[Node, Arrays], np.ndarray]] = {
    "Div": lambda node, a: divide(a[0], a[1]),  # type: ignore[arg-type]
    "Pow": lambda node, a: _pow(a[0], a[1]),  # type: ignore[arg-type]
    "Cast": lambda node, a: cast(a[0], dtype_of(attribute(node, "to"))),  # type: ignore[arg-type]
    "Where": lambda node, a: np.where(a[0], a[1], a[2]),  # type: ignore[arg-type]
    "Concat": lambda node, a: np.concatenate(a, axis=attribute(node, "axis")),  # type: ignore
    "Gather": lambda node, a: _gather(node, a[0], a[1]),  # type: ignore[arg-type]
    "Slice": _slice,
    "Range": lambda node, a: _range(a[0], a[1], a[2]),  # type: ignore[arg-type]
    "ConstantOfShape": _constant_of_shape,
    "Expand": lambda node, a: _expand(a[0], a[1]),  # type: ignore[arg-type]
    "Shape": lambda node, a: _shape(node, a[0]),  # type: ignore[arg-type]
    "Size": lambda node, a: np.array(a[0].size, np.int64),  # type: ignore[union-attr]
}


def result_bytes(node: Node, arrays: Arrays) -> int | None:
    """Size of the result before it is computed, or None when only computing would tell."""
    known = [a for a in arrays if a is not None]
    item = known[0].dtype.itemsize if known else 4
    match node.op_type:
        case "ConstantOfShape":
            return math.prod(int(n) for n in known[0]) * 8
        case "Expand":
            shape = np.broadcast_shapes(known[0].shape, tuple(int(n) for n in known[1]))
            return math.prod(shape) * item
        case "Range":
            start, limit, delta = (a.item() for a in known)
            return max(int((limit - start) / delta), 0) * item
        case "Gather":
            axis = attribute(node, "axis", 0)
            return known[0].nbytes // max(known[0].shape[axis], 1) * known[1].size
        case "Where" | "Div" | "Pow":
            return math.prod(np.broadcast_shapes(*(a.shape for a in known))) * known[-1].itemsize
        case name if name in _BINARY:
            return math.prod(np.broadcast_shapes(*(a.shape for a in known))) * item
        case name if name in _UNARY or name in _OTHERS or name in LAYOUT:
            return sum(a.nbytes for a in known)
    return _declared_bytes(node)


def _declared_bytes(node: Node) -> int | None:
    total = 0
    for value in node.outputs:
        if not value.name:
            continue
        if value.shape is None or not value.shape.is_static() or value.dtype is None:
            return None
        total += math.prod(value.shape.numpy()) * 8
    return total


def evaluate(node: Node, arrays: Arrays, opset: int) -> list[np.ndarray]:
    """The node's outputs.

    raises: whatever numpy or onnx.reference raises on inputs that the op does not take.
    """
    name = node.op_type
    with np.errstate(all="ignore"):
        if name in _BINARY:
            return [np.asarray(_BINARY[name](arrays[0], arrays[1]))]
        if name in _UNARY:
            return [np.asarray(_UNARY[name](arrays[0]))]
        if name in _OTHERS:
            return [np.asarray(_OTHERS[name](node, arrays))]
        if name in LAYOUT:
            return [layout(node, arrays[0], arrays)]  # type: ignore[arg-type]
        return _reference(node, arrays, opset)


def _reference(node: Node, arrays: Arrays, opset: int) -> list[np.ndarray]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = ["" if a is None else f"i{i}" for i, a in enumerate(arrays)]
    outputs = [f"o{i}" if v.name else "" for i, v in enumerate(node.outputs)]
    proto = onnx.helper.make_node(node.op_type, names, outputs)
    proto.attribute.extend(onnx_ir.to_proto(a) for a in node.attributes.values())  # type: ignore
    infos = [onnx.helper.make_empty_tensor_value_info(n) for n in outputs if n]
    inputs = [onnx.helper.make_empty_tensor_value_info(n) for n in names if n]
    graph = onnx.helper.make_graph([proto], "node", inputs, infos)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    feeds = {n: a for n, a in zip(names, arrays, strict=True) if n}
    results = iter(ReferenceEvaluator(model).run(None, feeds))
    return [np.asarray(next(results)) if name else np.empty(0) for name in outputs]
