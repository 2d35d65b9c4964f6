"""`capture`: whatever holds a model -> the graph that all of ptqc works on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from ir.capture.canonical import canonicalise
from ir.capture.infer import check
from ir.capture.read import read_graphsurgeon, read_model, read_path, read_proto
from ir.capture.upgrade import upgrade
from ir.errors import CaptureError
from ir.graph import no_collection

Example = Sequence[Any] | Mapping[str, Any] | Any


def capture(
    source: Any, example: Example = None, *, dynamic: Any = None, name: str | None = None
) -> ir.Model:
    """Read a model and bring it to the working opset (25) and IR version (13).

    source: path of an .onnx file, onnx.ModelProto, onnx_ir.Model, onnx-graphsurgeon Graph,
        torch.export.ExportedProgram, or torch.nn.Module. It is never modified; weights that are
        arrays, torch tensors or external files already are shared, not copied.
    example: for a Module, the inputs to trace it with: a tensor, a tuple of positional or a dict
        of keyword arguments.
    dynamic: for a Module, `torch.export`'s dynamic_shapes; None keeps the example's shapes.
    name: the graph's name; None keeps the source's.

    In the result constants are initializers (Constant nodes remain in function bodies only, which
    cannot hold initializers), initializers are no inputs, value and node names are unique, unknown
    input dimensions are symbols, and inferred types and shapes are on the values. External data
    stays in its file. Raises CaptureError, saying why, for anything unreadable, unsound or
    unsupported.
    """
    with no_collection():
        model = _read(source, example, dynamic)
        canonicalise(model)
        upgrade(model)
        check(model)
    if name is not None:
        model.graph.name = name
    elif not model.graph.name:
        model.graph.name = "main"
    return model


def _read(source: Any, example: Example, dynamic: Any) -> ir.Model:
    if _is_torch(source):
        from ir.capture.torch_export import read_torch

        return read_torch(source, example, dynamic)
    if example is not None or dynamic is not None:
        raise CaptureError(
            f"example and dynamic are for torch modules, not for {type(source).__name__}",
            hint="leave them out: an ONNX model knows its inputs",
        )
    if isinstance(source, str | os.PathLike):
        return read_path(Path(source))
    if isinstance(source, onnx.ModelProto):
        return read_proto(source)
    if isinstance(source, ir.Model):
        return read_model(source)
    if type(source).__module__.startswith("onnx_graphsurgeon"):
        return read_graphsurgeon(source)
    raise CaptureError(
        f"cannot read a model from {type(source).__name__}",
        hint="give an .onnx path, ModelProto, onnx_ir.Model, graphsurgeon Graph or torch module",
    )


def _is_torch(source: Any) -> bool:
    """A Module or ExportedProgram, found without importing torch for those who do not use it."""
    return any(
        base.__module__.startswith("torch.") and base.__name__ in ("Module", "ExportedProgram")
        for base in type(source).__mro__
    )
