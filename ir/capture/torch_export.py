"""torch.nn.Module and ExportedProgram -> onnx_ir, through torch's own ONNX exporter."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch.utils._pytree import tree_map

from ir.capture.read import read_model
from ir.errors import CaptureError


def read_torch(source: Any, example: Any, dynamic: Any) -> ir.Model:
    """Export in evaluation mode; the weights of the result are the module's own tensors.

    The module's training flags are put back afterwards, whatever happens.
    """
    if isinstance(source, torch.export.ExportedProgram):
        if example is not None or dynamic is not None:
            raise CaptureError(
                "an ExportedProgram already has its example and dynamic shapes",
                hint="leave example and dynamic out",
            )
        return _to_onnx(source)
    if example is None:
        raise CaptureError(
            "a torch module needs example inputs", hint="capture(module, (tensor, ...))"
        )
    args, kwargs = _arguments(example)
    with _evaluating(source), torch.no_grad():
        try:
            program = torch.export.export(source, args, kwargs, dynamic_shapes=_unnamed(dynamic))
        except Exception as error:
            raise CaptureError(
                f"torch.export cannot trace the module: {_brief(error)}",
                at=type(source).__name__,
                hint="check that module(*example) runs, without data-dependent control flow; and "
                "that the example is 2 or longer along every dynamic axis (torch takes 1 as fixed)",
            ) from error
    model = _to_onnx(program)
    _name_dimensions(model, dynamic)
    return model


def _unnamed(dynamic: Any) -> Any:
    """`dynamic` for torch.export, which takes no bare names: a name means 'dynamic'."""
    if isinstance(dynamic, str):
        return torch.export.Dim.DYNAMIC
    if isinstance(dynamic, Mapping):
        return {key: _unnamed(value) for key, value in dynamic.items()}
    if isinstance(dynamic, tuple | list):
        return type(dynamic)(_unnamed(value) for value in dynamic)
    return dynamic


def _name_dimensions(model: ir.Model, dynamic: Any) -> None:
    """Give symbols that torch numbered (s77) the names that the caller chose for them.

    A sequence of tensors given as one argument is named per tensor: `past` gives `past_0`, ...
    Deeper structures keep torch's names.
    """
    if isinstance(dynamic, Mapping):
        named = dict(_per_tensor(dynamic))
        pairs = [(value, named.get(value.name)) for value in model.graph.inputs]
    else:
        pairs = list(zip(model.graph.inputs, dynamic or (), strict=False))
    names: dict[str | None, str] = {}
    for value, axes in pairs:
        if isinstance(axes, Mapping) and value.shape is not None:
            for axis, dim in axes.items():
                symbol = value.shape[axis]
                name = dim if isinstance(dim, str) else getattr(dim, "__name__", None)
                if isinstance(symbol, ir.SymbolicDim) and name and name.isidentifier():
                    names[symbol.value] = name
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # said again, in the new names, by shape inference


def _per_tensor(dynamic: Mapping[str, Any]) -> Iterator[tuple[str | None, Any]]:
    for name, axes in dynamic.items():
        if isinstance(axes, tuple | list):
            yield from ((f"{name}_{i}", each) for i, each in enumerate(axes))
        else:
            yield name, axes


def _renamed(dim: int | ir.SymbolicDim, names: dict[str | None, str]) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim
    if dim.value is None:
        return dim
    return ir.SymbolicDim(re.sub(r"\w+", lambda word: names.get(word[0], word[0]), dim.value))


def _arguments(example: Any) -> tuple[tuple, dict[str, Any]]:
    example = _distinct(example)
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    return (example,), {}


def _distinct(example: Any) -> Any:
    """The same structure, a tensor that is in it twice copied: torch.export takes inputs that are
    one object for one input, and would build a graph that reads the first for both."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) in seen:
            return leaf.clone()
        seen.add(id(leaf))
        return leaf

    return tree_map(own, example)


def _to_onnx(program: torch.export.ExportedProgram) -> ir.Model:
    try:
        with _quiet():
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
    except Exception as error:
        raise CaptureError(
            f"torch.onnx cannot express the program: {_brief(error)}",
            hint="the first unsupported operator is named above; replace or decompose it",
        ) from error
    assert exported is not None
    return read_model(exported.model)


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about deprecations inside torch that no caller can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
