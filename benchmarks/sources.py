"""A reference model in the framework it comes from, and as captured: functions of feeds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

import ir
from backends.torch import Executor
from benchmarks import sizes
from benchmarks.cases import SHARED
from benchmarks.feeds import Feed
from benchmarks.measure import session
from ir.errors import DataError

Run = Callable[[Feed], list[np.ndarray]]


def module(name: str) -> ModuleType:
    """The module of `models`; the digits are files beside the project. Raises DataError."""
    if not name.startswith("digits_"):
        return importlib.import_module(f"models.{name}")
    file = SHARED / "data" / "digits" / f"{name}.onnx"
    if not file.exists():
        raise DataError("no digits data", at=str(file), hint="set PTQC_SHARED")
    found = ModuleType(name)
    example = {"x": np.zeros((20, 3, 32, 32), np.float32)}
    vars(found).update(load=lambda: file, example=lambda: example)
    return found


def drawn(model: ModuleType, graph: ir.Graph) -> list[Feed]:
    """A feed of the example's sizes, and one with every free axis longer, if there is one.

    Its numbers are the model's own evaluation data, repeated; without that, random ones.
    """
    example = model.example()
    if isinstance(example, Mapping):
        shapes = {str(v.name): example[v.name].shape for v in graph.graph.inputs}
    else:
        flat = [tuple(t.shape) for t in sizes.flat(example)]
        shapes = {str(v.name): shape for v, shape in zip(graph.graph.inputs, flat, strict=True)}
    free = {
        str(v.name): [not isinstance(d, int) for d in v.shape or ()] for v in graph.graph.inputs
    }
    kinds = {str(v.name): v.dtype.numpy() for v in graph.graph.inputs if v.dtype is not None}
    feeds, real = sizes.feeds(shapes, free, kinds, seed=1), _real(model)
    if not real:
        return feeds
    return [{k: sizes.filled(real[k], array.shape) for k, array in f.items()} for f in feeds]


def _real(model: ModuleType) -> Feed:
    """One evaluation feed, or nothing where its data is not at hand or it has an empty cache."""
    try:
        (feed,) = model.evaluation(1)
    except (AttributeError, DataError):
        return {}
    return feed if all(array.size for array in feed.values()) else {}


def in_torch(model: ModuleType) -> bool:
    return not isinstance(model.load(), Path)


def source(model: ModuleType) -> Run:
    """The model in the framework it comes from: torch, or ONNX Runtime for a file."""
    net, example = model.load(), model.example()
    if isinstance(net, Path):
        return _in_session(net)

    def run(feed: Feed) -> list[np.ndarray]:
        tensors = iter([torch.from_numpy(array) for array in feed.values()])
        with torch.no_grad():
            found = net(*_like(example, tensors))
        return [t.numpy() for t in (found if isinstance(found, tuple) else (found,))]

    return run


def captured(model: ModuleType, graph: ir.Graph, folder: Path) -> Run:
    """The captured graph in the same framework: what differs is the capture, not the kernels."""
    if not in_torch(model):
        file = folder / "captured.onnx"
        ir.save(graph, file)
        return _in_session(file)
    executor = Executor(graph)
    return lambda feed: [value.numpy() for value in executor.run(feed).values()]


def _in_session(file: Path) -> Run:
    opened = session(file, optimise=False)
    return lambda feed: [np.asarray(out) for out in opened.run(None, feed)]


def _like(example, tensors) -> tuple:
    """The tensors nested as the example is."""
    return tuple(_like(e, tensors) if isinstance(e, tuple) else next(tensors) for e in example)
