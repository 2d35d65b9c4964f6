"""What shape and dtype every value has, and how many elements that is."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence

import onnx_ir
from onnx_ir.passes.common import ShapeInferencePass
from onnx_shape_inference import infer_symbolic_shapes, registry

from ir.errors import PassError
from ir.graph import OPSET, Graph, Node, Value, constant, nodes

Dim = int | str | None
"""A number, the text of a symbol or formula such as `batch` or `2*seq`, or None (nothing known)."""


def infer(graph: Graph) -> Graph:
    """Fill in the shape and dtype of every value that can be known; returns the same graph.

    Symbolic dims are kept, and sums and products of them come out as formulas. Weights are
    looked at by shape only, so external data stays on disk. A node that inference cannot
    follow leaves its outputs unknown and never stops the others.

    The symbolic engine follows Shape -> Gather -> Concat -> Reshape chains. It gives up a whole
    model on one node that contradicts itself; the C++ inference of onnx, slower and with less
    arithmetic on symbols, then does what is left.
    """
    _correct_engine()
    computed = [v for node in nodes(graph) for v in node.outputs if v.const_value is None]
    with _quiet():
        try:
            infer_symbolic_shapes(graph, warn_on_missing=False)
        except Exception:  # any error of the engine: an odd model must still be analysed
            ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)
    for value in computed:
        value.const_value = None  # the engine leaves what it knows of Shape outputs behind
    return graph


@functools.cache
def _correct_engine() -> None:
    """Where sizes or axes are computed, the engine (0.4.0) guesses: make it say nothing instead."""
    registry.collect()
    for op_type, certain in _CERTAIN.items():
        known = registry.get("", op_type, OPSET)
        if known is not None:
            registry.register("", op_type, since_version=11)(_only_if(certain, known))


def _parameter_known(node: Node) -> bool:
    return len(node.inputs) < 2 or node.inputs[1] is None or constant(node.inputs[1]) is not None


_CERTAIN = {
    "Split": _parameter_known,
    "Squeeze": _parameter_known,
    "Unique": lambda node: "axis" not in node.attributes,  # taken for the flattened form
}


def _only_if(certain, known):
    def rule(ctx, node: Node) -> None:
        if certain(node):
            known(ctx, node)
            return
        for output in node.outputs:
            if node.inputs[0] is not None and node.inputs[0].dtype is not None:
                ctx.set_dtype(output, node.inputs[0].dtype)

    return rule


class _quiet:
    """Keep the engines' warnings about unknown ops away from the user."""

    loggers = ("onnx_shape_inference", "onnx_ir.passes.common.shape_inference")

    def __enter__(self) -> None:
        self.levels = [logging.getLogger(name).level for name in self.loggers]
        for name in self.loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        for name, level in zip(self.loggers, self.levels, strict=True):
            logging.getLogger(name).setLevel(level)


def dims(value: Value | None) -> tuple[Dim, ...] | None:
    """The dims of a value, or None when not even the rank is known."""
    shape = None if value is None else value.shape
    if shape is None:
        return None
    return tuple([d if d.__class__ is int else _dim(d) for d in shape.dims])  # type: ignore


def known(found: Sequence[Dim]) -> tuple[int, ...] | None:
    """The dims where all of them are numbers."""
    numbers = tuple(d for d in found if isinstance(d, int))
    return numbers if len(numbers) == len(found) else None


def _dim(dim: int | onnx_ir.SymbolicDim) -> Dim:
    if isinstance(dim, onnx_ir.SymbolicDim):
        return None if dim.value is None else str(dim.value)
    return int(dim)


def dtype(value: Value | None) -> onnx_ir.DataType | None:
    """The element type of a value, or None when unknown."""
    return None if value is None else value.dtype


def bound(value: Value, binding: Mapping[str, int] | None = None) -> tuple[int, ...]:
    """The dims of a value as numbers, with `binding` of symbol to number put in.

    Raises PassError naming the symbol that is not bound, or the value whose shape is unknown.
    """
    if value.shape is None:
        raise PassError(
            "its shape is unknown", at=value, hint="call ir.analysis.shapes.infer first"
        )
    numbers = dict(binding or {})
    return tuple(_bound_dim(value, dim, numbers) for dim in value.shape)


def _bound_dim(value: Value, dim: int | onnx_ir.SymbolicDim, binding: dict[str, int]) -> int:
    if not isinstance(dim, onnx_ir.SymbolicDim):
        return int(dim)
    name = dim.value
    if name in binding:
        return binding[str(name)]
    if name is None:
        raise PassError(
            "a dim has neither a number nor a name", at=value, hint="give the inputs fixed shapes"
        )
    free = sorted(s for s in dim.free_symbols() if s not in binding)
    if free:
        raise PassError(
            f"dim '{dim.value}' needs a number for '{free[0]}'",
            at=value,
            hint=f"bind it: binding={{{free[0]!r}: 1}} (--dims {free[0]}=1)",
        )
    found = dim.evaluate(binding)
    if found is None:
        raise PassError(f"dim '{dim.value}' has no value under the binding", at=value)
    return int(str(found))


def elements(value: Value, binding: Mapping[str, int] | None = None) -> int:
    """How many elements a value holds; errors as `bound`."""
    return math.prod(bound(value, binding))
