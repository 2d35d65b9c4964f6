"""Feeds for any model at its original sizes, and at others where its axes are free."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from benchmarks import feeds as files
from benchmarks.cases import Case
from benchmarks.feeds import Feed

Shapes = Mapping[str, tuple[int, ...]]
IDS = 1000
"""Ids are drawn below this; other whole numbers are 0 or 1 (masks, classes)."""


def drawn(case: Case, seed: int = 0) -> list[Feed]:
    """One feed of the original sizes; a second one where an axis is free.

    Where the case has test feeds, their numbers are repeated to fill the shapes.
    """
    model = onnx.load(case.model, load_external_data=False)
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in names}
    shapes = original(case, list(inputs))
    free = {name: [d.dim_value <= 0 for d in t.shape.dim] for name, t in inputs.items()}
    kinds = {n: onnx.helper.tensor_dtype_to_np_dtype(t.elem_type) for n, t in inputs.items()}
    found = feeds(shapes, free, kinds, seed)
    if not case.test:
        return found
    real = files.load(case.feeds("test"))[0]
    return [{n: filled(real[n], array.shape) for n, array in feed.items()} for feed in found]


def original(case: Case, names: list[str]) -> Shapes:
    """The shapes of the model's own example, by input."""
    if case.name.startswith("digits_"):
        return {name: files.load(case.feeds("test"))[0][name].shape for name in names}
    example = importlib.import_module(f"models.{case.name}").example()
    if isinstance(example, Mapping):
        return {name: example[name].shape for name in names}
    return dict(zip(names, (tuple(each.shape) for each in flat(example)), strict=True))


def flat(example) -> list:
    """The tensors of nested tuples, in order."""
    parts = (flat(e) if isinstance(e, tuple | list) else [e] for e in example)
    return [tensor for part in parts for tensor in part]


def feeds(
    shapes: Shapes, free: Mapping[str, Sequence[bool]], kinds: Mapping, seed: int
) -> list[Feed]:
    """One feed of these shapes, and one of the `longer` shapes if any axis is free."""
    wider = longer(shapes, free)
    rng = np.random.default_rng(seed)
    return [
        {name: numbers(name, shape, kinds[name], rng) for name, shape in each.items()}
        for each in ([shapes] if wider == shapes else [shapes, wider])
    ]


def longer(shapes: Shapes, free: Mapping[str, Sequence[bool]]) -> Shapes:
    """Every free axis one longer, by 32 where it is a multiple of 32: equal sizes stay equal."""
    return {
        name: tuple(
            size + (32 if size % 32 == 0 and size else 1) if is_free else size
            for size, is_free in zip(shape, free[name], strict=True)
        )
        for name, shape in shapes.items()
    }


def numbers(name: str, shape: tuple[int, ...], kind, rng: np.random.Generator) -> np.ndarray:
    """Normal floats; levels and times, one a row, in 0.05..1; whole numbers as `IDS` says."""
    if np.issubdtype(kind, np.floating):
        row = len(shape) < 2
        found = rng.uniform(0.05, 1, shape) if row else rng.standard_normal(shape)
        return np.asarray(found, kind)
    return rng.integers(0, IDS if "ids" in name else 2, shape).astype(kind)


def filled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array repeated or cut along every axis to a shape."""
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[axis], axis)
    return array
