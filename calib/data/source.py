"""Which reader a source needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib.data import arrays, audio, images, text
from calib.data.arrays import Arrays, add_batch_axis
from calib.data.preprocess import Options
from calib.data.signature import Feed, Input, as_feed
from ir.errors import DataError

_KINDS = {
    "images": images.SUFFIXES,
    "sound": audio.SUFFIXES,
    "text": text.SUFFIXES,
    "arrays": arrays.SUFFIXES,
}


class Items:
    """An iterable of batches, or of single samples: dicts, arrays, tuples in input order."""

    def __init__(
        self, start: Callable[[], Iterable[Any]], inputs: Sequence[Input], options: Options
    ) -> None:
        self.start = start
        self.inputs = inputs
        self.options = options

    def stream(self) -> Iterator[tuple[str, Feed]]:
        for index, found in enumerate(self.start()):
            item, where = found if isinstance(found, _File) else (found, f"batch {index}")
            if isinstance(item, Mapping):
                item = arrays.pick(item, self.options, self.inputs, where)
            yield where, add_batch_axis(as_feed(item, self.inputs, where), self.inputs)


class _File(tuple[Any, str]):
    """(content, path): an item that knows where it is from."""


Reader = Arrays | images.Images | audio.Audio | text.Text | Items


def reader(source: Any, inputs: Sequence[Input], options: Options) -> Reader:
    """raises: DataError when the source is missing, empty, or nothing that can be read."""
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source), inputs, options)
    if isinstance(source, (list, tuple)) and source and _all_paths(source):
        return _from_files([Path(path) for path in source], inputs, options, "the list")
    if isinstance(source, Mapping):
        return Arrays(arrays.pick(source, options, inputs, "the arrays"), inputs, "the arrays")
    if isinstance(source, np.ndarray) or hasattr(source, "detach"):
        _no_options(options)
        return Arrays(source, inputs, "the array")
    if isinstance(source, Callable):
        return Items(source, inputs, options)
    if isinstance(source, Iterator):
        return Items(_only_once(source), inputs, options)
    if isinstance(source, Iterable):
        return Items(lambda: source, inputs, options)
    raise DataError(
        f"{type(source).__name__} is no data source",
        hint="give arrays, a path, an iterable of batches, or a function that returns one",
    )


def _from_path(path: Path, inputs: Sequence[Input], options: Options) -> Reader:
    if not path.exists():
        raise DataError("data not found", at=path, hint="check the path")
    if path.is_file():
        return _from_files([path], inputs, options, str(path))
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(path).parts)
    )
    return _from_files(files, inputs, options, str(path))


def _from_files(
    files: Sequence[Path], inputs: Sequence[Input], options: Options, where: str
) -> Reader:
    by_kind = {
        kind: [file for file in files if file.suffix.lower() in suffixes]
        for kind, suffixes in _KINDS.items()
    }
    found = [kind for kind, of_kind in by_kind.items() if of_kind]
    if len(found) != 1:
        known = ", ".join(sorted(set().union(*_KINDS.values())))
        raise DataError(
            f"found {' and '.join(found)} together" if found else "found no file of a known kind",
            at=where,
            hint=f"known are {known}; one kind at a time",
        )
    files = by_kind[found[0]]
    if found[0] == "images":
        return images.Images(files, inputs, options)
    if found[0] == "sound":
        return audio.Audio(files, inputs, options)
    if found[0] == "text":
        return text.Text(files, inputs, options)
    return _from_array_files(files, inputs, options)


def _from_array_files(files: Sequence[Path], inputs: Sequence[Input], options: Options) -> Reader:
    if len(files) > 1:
        return Items(lambda: (_File((_open(f), str(f))) for f in files), inputs, options)
    content = _open(files[0])
    if isinstance(content, Mapping) and len(content) == len(inputs) == 1 and not options:
        (content,) = content.values()
    if isinstance(content, Mapping):
        content = arrays.pick(content, options, inputs, str(files[0]))
    else:
        _no_options(options)
    return Arrays(content, inputs, str(files[0]))


_open = arrays.open_file


def _no_options(options: Options) -> None:
    if options:
        raise DataError(
            f"arrays take no preprocessing, found {', '.join(options)}",
            hint="preprocess the arrays before, or give the raw files",
        )


def _only_once(source: Iterator[Any]) -> Callable[[], Iterator[Any]]:
    used = False

    def start() -> Iterator[Any]:
        nonlocal used
        if used:
            raise DataError(
                "this iterator was read before and cannot start again",
                hint="give a list, or a function that returns a new iterator",
            )
        used = True
        return source

    return start


def _all_paths(source: Sequence[Any]) -> bool:
    return all(isinstance(one, (str, os.PathLike)) for one in source)
