"""The inputs that every step's promise is checked on: the first samples of the data, or random
ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

import calib
from ir.errors import DataError
from ir.graph import Graph

PROBES = 2
"""Samples of the first batch that are used, where the graph lets the batch be cut."""

Feeds = dict[str, np.ndarray]


def probes(graph: Graph, batches: Iterable[Feeds] | None, seed: int) -> list[Feeds]:
    """One batch of at most `PROBES` samples (all of it where the batch size is fixed).

    batches: calibration data; None: drawn from `seed` to fit the graph's inputs.
    raises: DataError when there are no batches.
    """
    source = calib.data.synthetic(graph, 1, seed) if batches is None else batches
    found = list(islice(iter(source), 1))
    if not found:
        raise DataError("the calibration data has no batches", hint="give at least one")
    return [_cut(feeds, PROBES) if _free_batch(graph) else feeds for feeds in found]


def first_samples(
    batches: Iterable[Feeds], samples: int, graph: Graph | None = None
) -> list[Feeds]:
    """Batches from the front until they hold `samples` samples.

    The first axis counts as the batch; a batch of scalars only is one sample. graph: the last batch
    is cut to what is asked for, where this graph lets it.
    """
    found: list[Feeds] = []
    held, free = 0, graph is not None and _free_batch(graph)
    for feeds in batches:
        if held >= samples:
            break
        found.append(_cut(feeds, samples - held) if free else feeds)
        held += max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
    return found


def _free_batch(graph: Graph) -> bool:
    """Whether no input's and no output's first axis has a fixed size."""
    return all(
        value.shape is not None and value.shape.rank() and not isinstance(value.shape[0], int)
        for value in (*graph.graph.inputs, *graph.graph.outputs)
    )


def _cut(feeds: Feeds, samples: int) -> Feeds:
    """The first samples, when all inputs share a batch axis."""
    sizes = {array.shape[0] if array.ndim else None for array in feeds.values()}
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None or size <= samples:
        return feeds
    return {name: array[:samples] for name, array in feeds.items()}


def in_batches(batches: Iterable[Feeds], size: int, graph: Graph) -> list[Feeds]:
    """The same samples in batches of at most `size`, where the graph lets a batch be cut."""
    found: list[Feeds] = []
    for feeds in batches:
        lengths = {array.shape[0] if array.ndim else None for array in feeds.values()}
        length = lengths.pop() if len(lengths) == 1 else None
        if length is None or not _free_batch(graph):
            found.append(feeds)
            continue
        for start in range(0, length, size):
            found.append({name: array[start : start + size] for name, array in feeds.items()})
    return found
