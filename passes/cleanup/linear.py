"""Layers that are linear in their channels, and the maths of folding a per-channel map into one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, constant, rank

from .walk import drop_unread, only_reader

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Linear:
    """A Conv, ConvTranspose, Gemm or MatMul with a constant weight, and its bias's Add."""

    node: Node
    add: Node | None
    """The Add after a MatMul; the others hold their bias themselves."""

    @property
    def output(self) -> Value:
        return (self.add or self.node).outputs[0]

    @property
    def weight(self) -> np.ndarray:
        return array(self.node.inputs[1])  # type: ignore[return-value]

    @property
    def group(self) -> int:
        return attribute(self.node, "group", 1)

    @property
    def channels(self) -> int:
        """Output channels."""
        tensor = constant(self.node.inputs[1])
        assert tensor is not None
        shape = tensor.shape.numpy()
        match self.node.op_type:
            case "Conv":
                return shape[0]
            case "ConvTranspose":
                return shape[1] * self.group
            case "Gemm":
                return shape[0 if attribute(self.node, "transB", 0) else 1]
        return shape[1]

    @property
    def rank(self) -> int | None:
        """Rank of the output; None when unknown."""
        if self.node.op_type in CONVOLUTIONS:
            return self.weight.ndim
        return 2 if self.node.op_type == "Gemm" else rank(self.node.inputs[0])

    @property
    def axis(self) -> int:
        """The output's channel axis, from the right: -1, or -rank + 1 for a convolution."""
        return 1 - self.weight.ndim if self.node.op_type in CONVOLUTIONS else -1

    def bias(self) -> np.ndarray | None:
        """The constant bias, float64[channels] (zeros without one); None: it is no constant row."""
        if self.node.op_type == "MatMul":
            value = self.add and bias_of(self.add)
        else:
            value = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        if value is None:
            return np.zeros(self.channels)
        found = array(value)
        if (
            found is None
            or found.size not in (1, self.channels)
            or found.size != (found.shape or (1,))[-1]
        ):
            return None
        beta = attribute(self.node, "beta", 1.0) if self.node.op_type == "Gemm" else 1.0
        return np.broadcast_to(beta * found.astype(np.float64).reshape(-1), (self.channels,))


def layer(node: Node | None) -> Linear | None:
    """The layer that a node is, its weight being a constant of rank 2 (or a convolution's)."""
    if node is None or node.domain or node.op_type not in (*CONVOLUTIONS, "Gemm", "MatMul"):
        return None
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or not weight.dtype.is_floating_point():
        return None
    if node.op_type in ("Gemm", "MatMul") and len(weight.shape) != 2:
        return None
    return Linear(node, None)


def bias_of(add: Node) -> Value | None:
    """The constant row that an Add adds, or None."""
    if add.op_type != "Add" or add.domain:
        return None
    rows = [v for v in add.inputs if v is not None and constant(v) is not None]
    if len(rows) != 1 or len(constant(rows[0]).shape) != 1:  # type: ignore[union-attr]
        return None
    return rows[0]


def layer_of(value: Value | None) -> Linear | None:
    """The layer whose output (bias included) a value is."""
    node = value.producer() if value is not None else None
    if node is None or bias_of(node) is None:
        return layer(node)
    source = next(v for v in node.inputs if constant(v) is None)
    found = layer(source.producer()) if source is not None else None
    if found is None or found.node.op_type != "MatMul" or only_reader(source) is not node:  # type: ignore
        return None
    row = constant(bias_of(node))
    return Linear(found.node, node) if row is not None and row.size == found.channels else None


def scale_outputs(
    weight: np.ndarray, s: np.ndarray, op: str, group: int, transposed: bool
) -> np.ndarray:
    """float64 weight whose layer gives s[channels] times the outputs.

    weight: Conv [M, C/g, ...]; ConvTranspose [C, M/g, ...]; matrix [K, N] ([N, K] transposed).
    """
    wide = weight.astype(np.float64)
    if op == "Conv":
        return wide * s.reshape(-1, *[1] * (weight.ndim - 1))
    if op == "ConvTranspose":
        rows, columns, *window = weight.shape
        grouped = wide.reshape(group, rows // group, columns, *window)
        factors = s.reshape(group, 1, columns, *[1] * len(window))
        return (grouped * factors).reshape(weight.shape)
    return wide * (s[:, None] if transposed else s)


def scale_inputs(
    weight: np.ndarray, s: np.ndarray, t: np.ndarray, op: str, group: int, transposed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(float64 weight, float64 bias to add) of the layer that reads x instead of s * x + t.

    s, t: [input channels]. Exact for a Conv without padding (or t = 0), a Gemm and a MatMul.
    """
    wide = weight.astype(np.float64)
    if op == "Conv":
        outputs, width = weight.shape[:2]
        per_group = np.repeat(s.reshape(group, width), outputs // group, axis=0)
        shifts = np.repeat(t.reshape(group, width), outputs // group, axis=0)
        taps = wide.reshape(outputs, width, -1).sum(axis=2)
        window = [1] * (weight.ndim - 2)
        return wide * per_group.reshape(outputs, width, *window), (taps * shifts).sum(axis=1)
    if transposed:
        return wide * s, wide @ t
    return wide * s[:, None], t @ wide


def rewrite(found: Linear, weight: np.ndarray, bias: np.ndarray, edit: Edit) -> Value | str:
    """Give a layer a new weight and bias: its output, or the reason why nothing was changed.

    The caller says by `Edit.replace` what the output now means; values inside get fresh names.
    """
    dtype = found.weight.dtype
    with np.errstate(over="ignore"):
        narrow, row = weight.astype(dtype), bias.astype(dtype)
    if not (np.isfinite(narrow).all() and np.isfinite(row).all()):
        return f"the folded weight is not finite in {dtype}"
    node = found.node
    _exchange(node, 1, narrow, edit)
    if node.op_type == "MatMul":
        return _rewrite_add(found, row, edit)
    if bias.any() or len(node.inputs) > 2:
        if len(node.inputs) < 3:
            edit.add_input(node)
        _exchange(node, 2, row, edit)
        if node.op_type == "Gemm":
            edit.attribute(node, "beta", None)
    return node.outputs[0]


def _exchange(node: Node, index: int, data: np.ndarray, edit: Edit) -> None:
    old = node.inputs[index]
    name = old.name if old is not None else f"{node.outputs[0].name}.bias"
    edit.set_input(node, index, edit.constant(data, str(name), at=node))
    drop_unread(edit, [old])


def _rewrite_add(found: Linear, row: np.ndarray, edit: Edit) -> Value:
    add, product = found.add, found.node.outputs[0]
    if add is None and not row.any():
        return product
    if add is None:
        held = edit.constant(row, f"{product.name}.bias", at=found.node)
        add = edit.node("Add", [product, held], like=str(product.name), after=found.node)
        edit.take_name(product, add.outputs[0])
    else:
        _exchange(add, list(add.inputs).index(bias_of(add)), row, edit)
    edit.rename(product, f"{add.outputs[0].name}.product")
    return add.outputs[0]
