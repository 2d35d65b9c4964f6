"""What is known of shapes and of the whole numbers computed from them, dimensions unknown or not.

`Dims` walks forward with a pass: `shape(value)` is a tuple of ints and `Poly`, `numbers(value)` the
elements of a shape-like tensor as an object array of the same.
"""

from __future__ import annotations

import numpy as np
import onnx_ir

from ir.graph import Node, Value, constant

from .number_rules import NUMBERS
from .shape_rules import SHAPES
from .sizes import Partial, Shape
from .symbols import Poly

MOST = 256
"""Numbers kept of one tensor: shapes and index lists, not data."""


class Dims:
    """Facts about values; feed nodes in topological order to `learn`."""

    def __init__(self) -> None:
        self._shapes: dict[Value, Shape | None] = {}
        self._numbers: dict[Value, np.ndarray | None] = {}

    def shape(self, value: Value | None) -> Shape | None:
        """Dimensions of a value; an unknown one is a name that no other has. None: rank unknown."""
        if value is None:
            return None
        if value not in self._shapes:
            self._shapes[value] = declared(value)
        return self._shapes[value]

    def numbers(self, value: Value | None) -> np.ndarray | None:
        """Elements of an int tensor as far as they are known: object array of int and Poly."""
        if value is None:
            return None
        if value not in self._numbers:
            tensor = constant(value)
            self._numbers[value] = None
            if tensor is not None and tensor.size <= MOST and _whole(tensor.dtype):
                self._numbers[value] = tensor.numpy().astype(object)
        return self._numbers[value]

    def learn(self, node: Node) -> None:
        """Work out what one node's first output is, and the shapes of all that a Split has."""
        if node.domain or not node.outputs:
            return
        output = node.outputs[0]
        try:
            rule = SHAPES.get(node.op_type)
            shape = rule(node, self) if rule else None
            for value in node.outputs if node.op_type == "Split" else (output,):
                known = self.shape(value)
                if shape is not None:
                    # exporters freeze outputs' open sizes
                    if known is None or value.is_graph_output():
                        known = _nameless(value, len(shape))
                    self._shapes[value] = _merge(known, shape)
            numbers = NUMBERS.get(node.op_type)
            if numbers is not None:
                found = numbers(node, self)
                if found is not None and found.size <= MOST:
                    self._numbers[output] = found
        except (ArithmeticError, IndexError, TypeError, ValueError):
            return  # beyond what these rules know; the declared shape stands

    def write(self, value: Value) -> None:
        """Put numbers, and names of inputs' sizes, onto a value that leaves them open."""
        shape = self.shape(value)
        if shape is None or value.is_graph_output():
            return
        if value.shape is not None and len(value.shape) != len(shape):
            return  # the model declares another rank than its ops have: the runtime will judge
        old = value.shape if value.shape is not None else [None] * len(shape)
        new = [d if isinstance(d, int) else _name(d) or k for d, k in zip(shape, old, strict=True)]
        if value.shape is None or list(old) != new:
            value.shape = onnx_ir.Shape(new)


def _is_name(size: int | Poly | None) -> bool:
    return isinstance(size, Poly) and _name(size) is not None


def _name(size: Poly) -> str | None:
    """A size that is a name and no formula: one that an input declares, or inference made up."""
    text = str(size)
    return text if text.isidentifier() else None


def _whole(dtype: onnx_ir.DataType) -> bool:
    return dtype.is_integer() or dtype == onnx_ir.DataType.BOOL


def declared(value: Value) -> Shape | None:
    """The shape written on a value, its nameless dimensions named after their place."""
    if value.shape is None:
        return None
    return tuple(
        dim if isinstance(dim, int) else Poly.named(dim.value or _place(value, axis))
        for axis, dim in enumerate(value.shape)
    )


def _nameless(value: Value, rank: int) -> Shape:
    return tuple(Poly.named(_place(value, axis)) for axis in range(rank))


def _place(value: Value, axis: int) -> str:
    return f"%{value.name}[{axis}]"


def _merge(known: Shape, derived: Partial) -> Shape:
    """Per axis the better of two truths: a number, else what follows from the inputs.

    An input's own open size wins over a declared number: exporters write the sizes of their example
    on outputs, and inference carries them on.
    """
    if len(known) != len(derived):
        known = tuple(d for d in derived if d is not None)
        if len(known) != len(derived):
            raise ArithmeticError("the declared rank is wrong, and a size is not known")
        return known
    return tuple(
        k if d is None or (not _is_name(d) and (isinstance(k, int) or str(d)[0] == "(")) else d
        for k, d in zip(known, derived, strict=True)
    )
