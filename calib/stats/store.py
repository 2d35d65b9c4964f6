"""Statistics to a file and back, so that calibration can stop, resume, and be split."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calib.stats.base import REGISTRY, Stat
from ir.errors import DataError, OutputError

_MANIFEST = "manifest"


def describe(stats: Mapping[str, Sequence[Stat]]) -> dict[str, list[dict[str, Any]]]:
    """{value name: [{stat: name, option: ...}]}: what was asked for, without what was seen."""
    return {
        value: [{"stat": stat.name, **stat.options()} for stat in found]
        for value, found in stats.items()
    }


def save(
    path: str | os.PathLike[str],
    stats: Mapping[str, Sequence[Stat]],
    note: Mapping[str, Any] | None = None,
) -> None:
    """Write all statistics and a JSON-able note into one .npz; the old file stays until then.

    raises: OutputError when the file cannot be written.
    """
    path = Path(path)
    manifest = {"stats": describe(stats), "note": dict(note or {})}
    arrays: dict[str, Any] = {
        f"{i}/{j}/{key}": array
        for i, found in enumerate(stats.values())
        for j, stat in enumerate(found)
        for key, array in stat.state().items()
    }
    arrays[_MANIFEST] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(
            f"statistics cannot be written: {error.strerror or error}",
            at=path,
            hint="free some space or choose another place",
        ) from error


def load(path: str | os.PathLike[str]) -> tuple[dict[str, list[Stat]], dict[str, Any]]:
    """(statistics by value name, note) from a file that save() wrote.

    raises: DataError when the file is missing, damaged, or not of this kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            manifest = json.loads(file[_MANIFEST].tobytes())
            stats = {
                value: [_revive(file, f"{i}/{j}/", entry) for j, entry in enumerate(entries)]
                for i, (value, entries) in enumerate(manifest["stats"].items())
            }
            return stats, manifest["note"]
    except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"statistics cannot be read: {error}",
            at=path,
            hint="remove the file to calibrate from the start",
        ) from error


def _revive(file: Any, prefix: str, entry: dict[str, Any]) -> Stat:
    options = {key: value for key, value in entry.items() if key != "stat"}
    stat = REGISTRY[entry["stat"]](**options)
    state = {key[len(prefix) :]: file[key] for key in file.files if key.startswith(prefix)}
    stat.restore(state)
    return stat
