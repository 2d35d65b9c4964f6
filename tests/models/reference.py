"""The reference models as graphs, captured once per test run, and what their source computes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest
import torch

import ir
import models
import passes
from backends.torch import Executor
from benchmarks import sizes
from benchmarks.cases import SHARED
from ir.errors import DataError
from passes.loop import Check

FAST = ("digits_cnn", "digits_vit", "fashion_cnn", "fashion_vit", "dit")
SLOW = (
    "resnet18", "mobilenetv2", "efficientnet_lite0", "ppocr_det", "terrain_unet", "minilm",
    "whisper_encoder", "whisper_cross", "whisper_decoder", "smollm2_off_grid", "big24",
)  # fmt: skip
Feed = dict[str, np.ndarray]
Run = Callable[[Feed], list[np.ndarray]]


def params(*left_out: str) -> list:
    """Every model's name; those that need packages or long are marked slow."""
    names = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
    return [n for n in names if (n if isinstance(n, str) else n.values[0]) not in left_out]


@cache
def module(name: str) -> ModuleType:
    """The module of `models`; the digits are files beside the project. Skips without weights."""
    if name.startswith("digits_"):
        file = SHARED / "data" / "digits" / f"{name}.onnx"
        if not file.exists():
            pytest.skip(f"no {file}; set PTQC_SHARED")
        found = ModuleType(name)
        found.load = lambda: file  # type: ignore[attr-defined]
        found.example = lambda: {"x": np.zeros((20, 3, 32, 32), np.float32)}  # type: ignore
        return found
    found = importlib.import_module(f"models.{name}")
    try:
        if name in SLOW:
            found.load()
    except DataError as error:
        pytest.skip(str(error))
    return found


@cache
def captured(name: str) -> ir.Graph:
    return models.capture(module(name))


@cache
def cleaned(name: str) -> ir.Graph:
    return passes.run(captured(name), "clean", check=Check.NONE).graph


def drawn(name: str) -> list[Feed]:
    """A feed of the example's sizes, and one with every free axis longer, if there is one.

    Its numbers are the model's own evaluation data, repeated; without that, random ones.
    """
    inputs = captured(name).graph.inputs
    example = module(name).example()
    if isinstance(example, Mapping):
        shapes = {str(v.name): example[v.name].shape for v in inputs}
    else:
        flat = [tuple(t.shape) for t in sizes.flat(example)]
        shapes = {str(v.name): shape for v, shape in zip(inputs, flat, strict=True)}
    free = {str(v.name): [not isinstance(d, int) for d in v.shape or ()] for v in inputs}
    kinds = {str(v.name): v.dtype.numpy() for v in inputs if v.dtype is not None}
    feeds, real = sizes.feeds(shapes, free, kinds, seed=1), _real(name)
    if not real:
        return feeds
    return [{k: sizes.filled(real[k], array.shape) for k, array in f.items()} for f in feeds]


def _real(name: str) -> Feed:
    """One evaluation feed, or nothing where its data is not at hand or it has an empty cache."""
    try:
        (feed,) = module(name).evaluation(1)
    except (AttributeError, DataError):
        return {}
    return feed if all(array.size for array in feed.values()) else {}


def source(name: str) -> Run:
    """The model in the framework it comes from: torch, or ONNX Runtime for a file."""
    net, example = module(name).load(), module(name).example()
    if isinstance(net, Path):
        return _session(net)

    def run(feed: Feed) -> list[np.ndarray]:
        tensors = iter([torch.from_numpy(array) for array in feed.values()])
        with torch.no_grad():
            found = net(*_like(example, tensors))
        return [t.numpy() for t in (found if isinstance(found, tuple) else (found,))]

    return run


def graph(name: str, folder: Path) -> Run:
    """The captured graph in the same framework: what differs is the capture, not the kernels."""
    if isinstance(module(name).load(), Path):
        file = folder / f"{name}.onnx"
        ir.save(captured(name), file)
        return _session(file)
    executor = Executor(captured(name))
    return lambda feed: [value.numpy() for value in executor.run(feed).values()]


def _session(file: Path) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(file), options)
    return lambda feed: [np.asarray(out) for out in session.run(None, feed)]


def _like(example, tensors) -> tuple:
    """The tensors nested as the example is."""
    return tuple(_like(e, tensors) if isinstance(e, tuple) else next(tensors) for e in example)
