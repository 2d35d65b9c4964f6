"""The shape of a node's output from the shapes of its inputs, sizes unknown or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ir.graph import Node, Value, attribute, scalar

from .sizes import Partial, Shape, broadcast, cut, reshaped
from .symbols import Poly
from .window_rules import WINDOWS

if TYPE_CHECKING:
    from .dims import Dims


def _same(node: Node, dims: Dims) -> Shape | None:
    return dims.shape(node.inputs[0])


def _elementwise(node: Node, dims: Dims) -> Partial | None:
    shapes = [dims.shape(value) for value in node.inputs]
    return None if None in shapes else broadcast(*shapes)  # type: ignore[arg-type]


def _reshape(node: Node, dims: Dims) -> Shape | None:
    wanted = dims.numbers(node.inputs[1])
    if wanted is None:
        return None
    return reshaped(
        dims.shape(node.inputs[0]), wanted, allowzero=bool(attribute(node, "allowzero"))
    )


def _transpose(node: Node, dims: Dims) -> Shape | None:
    shape = dims.shape(node.inputs[0])
    if shape is None:
        return None
    return tuple(shape[i] for i in attribute(node, "perm", tuple(reversed(range(len(shape))))))


def _matmul(node: Node, dims: Dims) -> Partial | None:
    a, b = (dims.shape(value) for value in node.inputs)
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    return (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])


def _concat(node: Node, dims: Dims) -> Shape | None:
    shapes = [dims.shape(value) for value in node.inputs]
    if None in shapes:
        return None
    axis = attribute(node, "axis") % len(shapes[0])  # type: ignore[arg-type]
    first: list = list(shapes[0])  # type: ignore[arg-type]
    for i in range(len(first)):
        numbers = [s[i] for s in shapes if isinstance(s[i], int)]  # type: ignore[index]
        first[i] = numbers[0] if numbers else first[i]
    first[axis] = sum(s[axis] for s in shapes)  # type: ignore[index,misc]
    return tuple(first)


def _axes(node: Node, dims: Dims) -> list[int] | None:
    axes = dims.numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if axes is None else [int(a) for a in axes.ravel()]


def _unsqueeze(node: Node, dims: Dims) -> Shape | None:
    shape, axes = dims.shape(node.inputs[0]), _axes(node, dims)
    if shape is None or axes is None:
        return None
    rank, rest = len(shape) + len(axes), iter(shape)
    places = {a % rank for a in axes}
    return tuple(1 if i in places else next(rest) for i in range(rank))


def _squeeze(node: Node, dims: Dims) -> Shape | None:
    shape, axes = dims.shape(node.inputs[0]), _axes(node, dims)
    if shape is None or axes is None:
        return None
    places = {a % len(shape) for a in axes}
    return tuple(size for i, size in enumerate(shape) if i not in places)


def _gather(node: Node, dims: Dims) -> Shape | None:
    data, indices = (dims.shape(value) for value in node.inputs)
    if data is None or indices is None:
        return None
    axis = attribute(node, "axis", 0) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def _gather_nd(node: Node, dims: Dims) -> Shape | None:
    data, indices = (dims.shape(value) for value in node.inputs)
    if data is None or indices is None or not isinstance(indices[-1], int):
        return None
    return (*indices[:-1], *data[attribute(node, "batch_dims", 0) + indices[-1] :])


def _expand(node: Node, dims: Dims) -> Partial | None:
    shape, wanted = dims.shape(node.inputs[0]), dims.numbers(node.inputs[1])
    return None if shape is None or wanted is None else broadcast(shape, tuple(wanted))


def _taken(node: Node, dims: Dims) -> Shape | None:
    """Slice: sizes of what is taken; where that is not known, a size of the output's own."""
    shape = dims.shape(node.inputs[0])
    parts = [dims.numbers(value) for value in node.inputs[1:]]
    if shape is None or any(part is None for part in parts[:4]):
        return None
    starts, ends = parts[:2]
    axes = parts[2] if len(parts) > 2 else range(len(starts))  # type: ignore[arg-type]
    steps = parts[3] if len(parts) > 3 else [1] * len(starts)  # type: ignore[arg-type]
    result = list(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):  # type: ignore
        size = shape[axis]
        if all(isinstance(n, int) for n in (size, start, end, step)):
            result[axis] = len(range(*slice(start, end, step).indices(size)))  # type: ignore
        elif isinstance(size, int) and size > 1 and (start, step) == (0, 1) and end.nonnegative:
            result[axis] = cut(size, end)
        elif not (start == 0 and step == 1 and (end == size or _endless(end))):
            result[axis] = Poly.named(f"%{node.outputs[0].name}[{axis}]")
    return tuple(result)


def _endless(end: int | Poly) -> bool:
    return isinstance(end, int) and end >= np.iinfo(np.int32).max


def _split(node: Node, dims: Dims) -> Partial | None:
    """Of every output: the axis that is split is left to what is declared."""
    shape = dims.shape(node.inputs[0])
    if shape is None:
        return None
    axis = attribute(node, "axis", 0) % len(shape)
    return tuple(None if i == axis else size for i, size in enumerate(shape))


def _counted(node: Node, dims: Dims) -> Shape | None:
    """Range from 0 by 1, its limit perhaps cast to float."""
    start, limit, step = (_through_cast(value, dims) for value in node.inputs)
    if start is None or limit is None or step is None or (start.item(), step.item()) != (0, 1):
        return None
    size = limit.item()
    return (size,) if not isinstance(size, Poly) or size.nonnegative else None


def _through_cast(value: Value | None, dims: Dims) -> np.ndarray | None:
    number = scalar(value)
    if number is not None and number == int(number):
        return np.array(int(number), object)
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "Cast":
        return dims.numbers(maker.inputs[0])
    return dims.numbers(value)


def _tiled(node: Node, dims: Dims) -> Shape | None:
    shape, repeats = dims.shape(node.inputs[0]), dims.numbers(node.inputs[1])
    if shape is None or repeats is None:
        return None
    return tuple(a * b for a, b in zip(shape, repeats, strict=True))


def _reduced(node: Node, dims: Dims) -> Shape | None:
    shape, axes = dims.shape(node.inputs[0]), attribute(node, "axes")
    if axes is None and len(node.inputs) > 1:
        axes = _axes(node, dims)
    if shape is None or not axes:
        return None
    gone = {axis % len(shape) for axis in axes}
    if attribute(node, "keepdims", 1):
        return tuple(1 if i in gone else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in gone)


def _flattened(node: Node, dims: Dims) -> Shape | None:
    shape = dims.shape(node.inputs[0])
    if shape is None:
        return None
    axis = attribute(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    return (math.prod(shape[:axis], start=1), math.prod(shape[axis:], start=1))  # type: ignore


def _einsum(node: Node, dims: Dims) -> Shape | None:
    terms, arrow, result = attribute(node, "equation").replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return None
    sizes: dict[str, int | Poly] = {}
    for letters, value in zip(terms.split(","), node.inputs, strict=True):
        sizes.update(zip(letters, dims.shape(value) or (), strict=True))
    return tuple(sizes[letter] for letter in result)


def _indices(node: Node, dims: Dims) -> Shape | None:
    return dims.shape(node.inputs[1])


def _from_numbers(node: Node, dims: Dims) -> Shape | None:
    wanted = dims.numbers(node.inputs[0])
    return None if wanted is None else tuple(wanted)


_SAME = (
    "Identity Cast Relu Sigmoid Tanh Erf Exp Log Sqrt Neg Abs Clip Softmax LogSoftmax Gelu Not "
    "LayerNormalization RMSNormalization BatchNormalization InstanceNormalization Dropout "
    "Reciprocal HardSigmoid HardSwish LeakyRelu Elu Sin Cos Floor Ceil Round Softplus Trilu "
    "CumSum Swish Mish"
)
_BROADCAST = (
    "Add Sub Mul Div Pow Where Equal Less Greater LessOrEqual GreaterOrEqual And Or Min Max Mod"
)
SHAPES: dict[str, Callable[[Node, Dims], Partial | None]] = {
    **WINDOWS,
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_BROADCAST.split(), _elementwise),
    "Reshape": _reshape, "Transpose": _transpose, "MatMul": _matmul, "Concat": _concat,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Gather": _gather, "GatherND": _gather_nd,
    "Expand": _expand, "Split": _split,
    "ConstantOfShape": _from_numbers, "Slice": _taken, "Range": _counted, "Tile": _tiled,
    "Flatten": _flattened, "GatherElements": _indices, "Einsum": _einsum,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"), _reduced),
}  # fmt: skip
