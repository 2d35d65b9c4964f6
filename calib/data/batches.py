"""Batches of any source: re-iterable, checked, one at a time in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir

from calib.data.arrays import Arrays
from calib.data.preprocess import parse
from calib.data.signature import Feed, Input, inputs_of
from calib.data.source import Items, Reader, reader
from calib.data.text import Text
from ir.errors import DataError

_DEFAULT_ROWS = 8


class Batches:
    """Feeds {input name: array} that fit a graph; iterate as often as you like, same order.

    rows: samples in all, None when only reading tells; total: batches in all, likewise;
    dropped: rows of the last walk that did not fill a batch of the graph's fixed size.
    """

    def __init__(
        self,
        source: Reader,
        inputs: Sequence[Input],
        *,
        batch_size: int | None,
        limit: int | None,
        seed: int | None,
    ) -> None:
        self.inputs = tuple(inputs)
        self._source = source
        self._limit = limit
        fixed = _fixed_rows(source, inputs)
        if fixed and batch_size and fixed != batch_size:
            raise DataError(
                f"batch size {batch_size} asked for, but the graph's is fixed at {fixed}",
                hint="leave the batch size out",
            )
        self._exact = fixed is not None
        self._size = batch_size or fixed or (None if isinstance(source, Items) else _DEFAULT_ROWS)
        self._indices: Sequence[int] = ()
        self.rows = self.total = None
        self.dropped = 0
        if not isinstance(source, (Items, Text)):
            self._indices = _choose(len(source), limit, seed)
            self.rows = len(self._indices)
        if isinstance(source, Arrays):
            source.size = self._size or 1
            full, rest = divmod(len(source) if limit is None else self.rows or 0, source.size)
            self.total = full + (rest > 0 and not self._exact)

    def __iter__(self) -> Iterator[Feed]:
        found = 0
        self.dropped = 0
        for where, feed in self._rebatched():
            found += 1
            yield {one.name: one.accept(feed[one.name], where) for one in self.inputs}
        if self.dropped:
            warnings.warn(
                f"{self.dropped} samples did not fill a batch of {self._size} and were left out",
                stacklevel=2,
            )
        if not found:
            raise DataError(
                "the data holds no batch"
                + (f": {self.dropped} samples do not fill one" if self.dropped else ""),
                hint="give at least one sample (one whole batch where the graph fixes its size)",
            )

    def _stream(self) -> Iterator[tuple[str, Feed]]:
        if not isinstance(self._source, (Items, Text)):
            yield from self._source.take(self._indices)
            return
        left = self._limit
        for where, feed in self._source.stream():
            rows = _rows(feed)
            if left is not None and rows is not None and rows > left:
                feed, rows = {name: array[:left] for name, array in feed.items()}, left
            if rows != 0:
                yield where, feed
            left = None if left is None else left - (1 if rows is None else rows)
            if left == 0:
                return

    def _rebatched(self) -> Iterator[tuple[str, Feed]]:
        """Rows of equal shapes joined to batches of `_size`; others stay as they came."""
        waiting: list[Feed] = []
        place = ""
        for where, feed in self._stream():
            rows = _rows(feed)
            if waiting and (rows is None or _shapes(feed) != _shapes(waiting[0])):
                yield from self._last(place, waiting)
                waiting = []
            if self._size is None or rows is None or (rows == self._size and not waiting):
                yield where, feed
                continue
            place, waiting = where, [*waiting, feed]
            if sum(len(next(iter(part.values()))) for part in waiting) >= self._size:
                joined = _join(waiting)
                count = len(next(iter(joined.values())))
                for start in range(0, count - self._size + 1, self._size):
                    yield where, _cut(joined, start, start + self._size)
                rest = count % self._size
                waiting = [_cut(joined, count - rest, count)] if rest else []
        if waiting:
            yield from self._last(place, waiting)

    def _last(self, where: str, waiting: list[Feed]) -> Iterator[tuple[str, Feed]]:
        joined = _join(waiting)
        if self._exact:
            self.dropped += len(next(iter(joined.values())))
        else:
            yield where, joined


def load(
    source: Any,
    graph: onnx_ir.Model,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    seed: int | None = 0,
    preprocess: str | dict[str, Any] | None = None,
) -> Batches:
    """Batches for `graph` from arrays, files, folders or an iterable; see the package docstring.

    batch_size: rows per batch (default: the graph's fixed size, else 8; an iterable's batches stay
    as they are). limit: samples at most; of data whose size is known a random choice by `seed` in
    the data's order, or the first ones when seed is None or the data is a stream.
    preprocess: `key=value,...` for images, sound and text, `input=key` for named arrays.

    raises: DataError, here where the source shows it, else while iterating.
    """
    for name, number in (("batch_size", batch_size), ("limit", limit)):
        if number is not None and number < 1:
            raise DataError(f"{name} is {number}", hint="give at least 1")
    inputs = inputs_of(graph)
    if not inputs:
        raise DataError("the graph has no input to feed", hint="run it without data")
    found = reader(source, inputs, parse(preprocess))
    return Batches(found, inputs, batch_size=batch_size, limit=limit, seed=seed)


def _fixed_rows(source: Reader, inputs: Sequence[Input]) -> int | None:
    """The batch size that the graph fixes, if all inputs that carry samples agree on one."""
    constant = source.constant if isinstance(source, Arrays) else set()
    leading = {one.shape[0] for one in inputs if one.shape and one.name not in constant}
    (first, *others) = leading or {None}
    return first if isinstance(first, int) and not others else None


def _choose(count: int, limit: int | None, seed: int | None) -> Sequence[int]:
    if not count:
        raise DataError("the data holds no samples", hint="give at least one")
    if limit is None or limit >= count:
        return range(count)
    if seed is None:
        return range(limit)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False)).tolist()


def _rows(feed: Feed) -> int | None:
    """Samples of a batch; None when the arrays do not all count the same along axis 0."""
    lengths = {array.shape[0] if array.ndim else None for array in feed.values()}
    return lengths.pop() if len(lengths) == 1 else None


def _shapes(feed: Feed) -> list[Any]:
    return [(array.shape[1:], array.dtype) for array in feed.values()]


def _join(feeds: list[Feed]) -> Feed:
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _cut(feed: Feed, start: int, stop: int) -> Feed:
    return {name: array[start:stop] for name, array in feed.items()}
