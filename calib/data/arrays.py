"""Arrays in memory, .npy and .npz files: rows along axis 0 are the samples."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from calib.data.preprocess import Options
from calib.data.signature import Feed, Input, as_feed
from ir.errors import DataError

SUFFIXES = frozenset({".npy", ".npz"})
_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


class Arrays:
    """Arrays whose axis 0 is samples, read in runs of `size` rows.

    An array whose shape is already exactly that of its input, all fixed, while others are longer,
    goes into every batch as it is; so does a scalar. Arrays of one rank less than their inputs are
    one sample.
    """

    def __init__(self, arrays: Any, inputs: Sequence[Input], where: str) -> None:
        self.where = where
        self.feed = add_batch_axis(as_feed(arrays, inputs, where), inputs)
        rows = max((a.shape[0] for a in self.feed.values() if a.ndim), default=1)
        self.constant = {i.name for i in inputs if _is_constant(self.feed[i.name], i, rows)}
        lengths = {n: len(a) for n, a in self.feed.items() if n not in self.constant}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"arrays have different numbers of samples: {lengths}",
                at=where,
                hint="axis 0 of every array is the sample",
            )
        self.rows = next(iter(lengths.values()), 1)
        self.inputs = inputs
        self.size = 1

    def __len__(self) -> int:
        return self.rows

    def take(self, indices: Sequence[int]) -> Iterator[tuple[str, Feed]]:
        for start in range(0, len(indices), self.size):
            rows = np.asarray(indices[start : start + self.size])
            feed = {
                name: array if name in self.constant else _rows(array, rows)
                for name, array in self.feed.items()
            }
            yield f"{self.where}, rows from {int(rows[0])}", feed


def add_batch_axis(feed: Feed, inputs: Sequence[Input]) -> Feed:
    """A single sample (every rank one less than the input's) as a batch of one."""
    ranks = [(feed[one.name].ndim, one.shape) for one in inputs]
    if all(shape is not None and rank == len(shape) - 1 for rank, shape in ranks):
        return {name: array[None] for name, array in feed.items()}
    return feed


def pick(arrays: Mapping[str, Any], options: Options, inputs: Sequence[Input], where: str) -> Any:
    """Arrays by input name: `options` may rename, input=key.

    raises: DataError when an option is no input's name or a key is not there.
    """
    names = [one.name for one in inputs]
    for name, key in options.items():
        if name not in names or key not in arrays:
            raise DataError(
                f"'{name}={key}' picks no array: inputs are {', '.join(names)}, keys are"
                f" {', '.join(map(str, arrays))}",
                at=where,
                hint="write input=key",
            )
    if not options:
        return arrays
    keys = {name: options.get(name, name) for name in names}
    return {name: arrays[key] for name, key in keys.items() if key in arrays}


def open_file(path: Path) -> dict[str, np.ndarray] | np.ndarray:
    """A .npy as a memory map, a .npz as a dict; members stored uncompressed are mapped too.

    raises: DataError when the file is damaged, or holds Python objects.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {m.filename.removesuffix(".npy"): _member(path, archive, m) for m in members}
    except _READ_ERRORS as error:
        raise DataError(
            f"arrays cannot be read: {error}",
            at=path,
            hint="write the file again with numpy.save or numpy.savez, without Python objects",
        ) from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED:
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    with open(path, "rb") as file:
        file.seek(info.header_offset + 26)  # zip local header: lengths of name and extra field
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        file.seek(name + extra, os.SEEK_CUR)
        shape, fortran, dtype = _header(file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        if 0 in shape or not shape:
            with archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape, order=order)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"array format {version} is not known")


def _is_constant(array: np.ndarray, wanted: Input, rows: int) -> bool:
    return array.ndim == 0 or (len(array) != rows and array.shape == wanted.shape)


def _rows(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A slice where the rows are consecutive (no copy), else those rows read in file order."""
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.asarray(array[rows[0] : rows[-1] + 1])
    order = np.argsort(rows)
    picked = array[rows[order]]
    return np.asarray(picked[np.argsort(order)])
