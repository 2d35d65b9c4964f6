"""The inputs that every step's promise is checked on: the first samples of the data, or random
ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

import calib
from ir.errors import DataError
from ir.graph import Graph

PROBES = 4
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
    return [_cut(feeds) if _free_batch(graph) else feeds for feeds in found]


def first_samples(batches: Iterable[Feeds], samples: int) -> list[Feeds]:
    """Whole batches from the front, until they hold at least `samples` samples.

    The first axis counts as the batch; a batch of scalars only is one sample.
    """
    found: list[Feeds] = []
    held = 0
    for feeds in batches:
        found.append(feeds)
        held += max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
        if held >= samples:
            break
    return found


def _free_batch(graph: Graph) -> bool:
    """Whether no input's first axis has a fixed size."""
    return all(
        value.shape is not None and value.shape.rank() and not isinstance(value.shape[0], int)
        for value in graph.graph.inputs
    )


def _cut(feeds: Feeds) -> Feeds:
    """The first samples, when all inputs share a batch axis."""
    sizes = {array.shape[0] for array in feeds.values()}
    if len(sizes) != 1 or next(iter(sizes)) <= PROBES:
        return feeds
    return {name: array[:PROBES] for name, array in feeds.items()}
