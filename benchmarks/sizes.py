"""Feeds for any ONNX model at its original sizes, and at others where its axes are free."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
import onnx

from benchmarks import feeds
from benchmarks.cases import Case
from benchmarks.feeds import Feed

Shapes = Mapping[str, tuple[int, ...]]
IDS = 1000
"""Ids are drawn below this; other whole numbers are 0 or 1 (masks, classes)."""


def drawn(case: Case, seed: int = 0) -> list[Feed]:
    """One feed of the original sizes; a second one where an axis is free."""
    model = onnx.load(case.model, load_external_data=False)
    names = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in names]
    shapes = original(case, [value.name for value in inputs])
    kinds = {v.name: onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
             for v in inputs}  # fmt: skip
    found = [shapes, *([wider] if (wider := other(inputs, shapes)) != shapes else [])]
    rng = np.random.default_rng(seed)
    return [{n: numbers(n, shape, kinds[n], rng) for n, shape in each.items()} for each in found]


def original(case: Case, names: list[str]) -> Shapes:
    """The shapes of the model's own example, by input."""
    if case.name.startswith("digits_"):
        return {name: feeds.load(case.feeds("test"))[0][name].shape for name in names}
    example = importlib.import_module(f"models.{case.name}").example()
    if isinstance(example, Mapping):
        return {name: example[name].shape for name in names}
    return dict(zip(names, (tuple(each.shape) for each in flat(example)), strict=True))


def flat(example) -> list:
    """The tensors of nested tuples, in order."""
    parts = (flat(e) if isinstance(e, tuple | list) else [e] for e in example)
    return [tensor for part in parts for tensor in part]


def other(inputs, shapes: Shapes) -> Shapes:
    """Every free axis one longer (by 32 where it is a multiple of 32); equal names stay equal."""
    result = {}
    for value in inputs:
        sizes = zip(shapes[value.name], value.type.tensor_type.shape.dim, strict=True)
        result[value.name] = tuple(
            size if dim.dim_value > 0 else size + (32 if size % 32 == 0 and size > 0 else 1)
            for size, dim in sizes
        )
    return result


def numbers(name: str, shape: tuple[int, ...], kind, rng: np.random.Generator) -> np.ndarray:
    """Normal floats; levels and times, one a row, in 0.05..1; whole numbers as `IDS` says."""
    if np.issubdtype(kind, np.floating):
        row = len(shape) < 2
        found = rng.uniform(0.05, 1, shape) if row else rng.standard_normal(shape)
        return np.asarray(found, kind)
    return rng.integers(0, IDS if "ids" in name else 2, shape).astype(kind)
