"""Write a graph as an ONNX file: whole or not at all.

A file is written under a temporary name beside its place, flushed to the disk and then renamed.
External weights go first, into a file named after their own digest, so that an existing model
never finds other weights under the name it refers to; the rename of the .onnx file is the one
moment at which the new model takes the place of the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import onnx
import onnx_ir as ir

from ir.capture.detached import detached, initializers, is_large, weight_bytes
from ir.capture.pieces import pieces, serialise
from ir.errors import OutputError

# A protobuf holds less than 2 GB; the rest is left for names, shapes and small constants.
_LARGEST_INLINE = 1_500_000_000
_ALIGN = 64


def save(
    model: ir.Model, path: str | os.PathLike, *, external: bool | Literal["auto"] = "auto"
) -> Path:
    """Write `model` to `path`, atomically; return the path. The model is not changed.

    external: whether weights of 1 KiB and more go to one file `<stem>-<digest>.data` beside it;
    'auto' does so above 1.5 GB of weights. The weights file of a model that stood there before is
    left alone: others may refer to it. Raises OutputError, and leaves nothing new behind, when
    the disk is full, the folder is missing or not writable, or one file would pass 2 GB.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OutputError("the place is taken by something that is not a plain file", at=path)
    if external == "auto":
        external = weight_bytes(model) > _LARGEST_INLINE
    try:
        if external:
            _save_split(model, target)
        else:
            _check_size(model)
            with _staged(target.parent, target.name) as stage:
                for piece in pieces(model):
                    stage.file.write(piece)
                stage.commit(target)
    except OSError as error:
        raise OutputError(
            f"cannot write the model: {error.strerror or error}",
            at=path,
            hint="free some space or choose another place; what stood there is untouched",
        ) from error
    return Path(path)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as one self-contained ModelProto: external weights are read in.

    Raises OutputError above 1.5 GB of weights, since a protobuf ends at 2 GB.
    """
    _check_size(model)
    return ir.to_proto(detached(model))


def to_bytes(model: ir.Model) -> bytes:
    """What `save` writes, as one string. Raises OutputError above 1.5 GB of weights."""
    _check_size(model)
    return b"".join(pieces(model))


def _check_size(model: ir.Model) -> None:
    size = weight_bytes(model)
    if size > _LARGEST_INLINE:
        raise OutputError(
            f"{size} bytes of weights do not fit one protobuf",
            hint="save with external=True and load that file",
        )


def _save_split(model: ir.Model, target: Path) -> None:
    """Weights to their own file, then the model; the weights go again if the model fails."""
    copy = detached(model, keep_initializers=True)
    with _staged(target.parent, target.name) as stage:
        digest = hashlib.sha256()
        places: dict[int, tuple[int, int]] = {}
        large = [value for value in initializers(copy) if is_large(value)]
        for value in large:
            tensor = value.const_value
            if tensor is not None and id(tensor) not in places:
                places[id(tensor)] = _append(stage.file, tensor.tobytes(), digest)
        data = target.with_name(f"{target.stem}-{digest.hexdigest()[:12]}.data")
        for value in large:
            value.const_value = _reference(value, data.name, places)
        content = serialise(ir.to_proto(copy))
        fresh = not data.exists()
        with _staged(target.parent, target.name) as model_stage:
            model_stage.file.write(content)
            try:
                stage.commit(data)
                model_stage.commit(target)
            except BaseException:
                if fresh and not model_stage.is_at(target):
                    data.unlink(missing_ok=True)
                raise


def _append(file: BinaryIO, content: bytes, digest: hashlib._Hash) -> tuple[int, int]:
    """Write `content` at the next aligned place; return its offset and length."""
    offset = file.tell()
    padding = bytes(-offset % _ALIGN)
    for part in (padding, content):
        file.write(part)
        digest.update(part)
    return offset + len(padding), len(content)


def _reference(
    value: ir.Value, location: str, places: dict[int, tuple[int, int]]
) -> ir.ExternalTensor:
    tensor = value.const_value
    assert tensor is not None
    offset, length = places[id(tensor)]
    return ir.ExternalTensor(
        location,
        offset,
        length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=value.name or "",
    )


class _Stage:
    """A temporary file; `commit` flushes it to the disk and gives it its final name."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file

    def commit(self, target: Path) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.path, target)
        with contextlib.suppress(OSError):  # not every file system can flush a folder
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def is_at(self, target: Path) -> bool:
        """The file has got its final name, however `commit` ended."""
        mine = os.fstat(self.file.fileno())
        return target.exists() and os.path.samestat(mine, target.stat())


@contextlib.contextmanager
def _staged(folder: Path, name: str) -> Iterator[_Stage]:
    """A new file `.<name>.<random>.tmp` in `folder`, gone at the end unless committed."""
    path = folder / f".{name}.{secrets.token_hex(6)}.tmp"
    try:
        with open(path, "xb") as file:
            yield _Stage(path, file)
    finally:
        path.unlink(missing_ok=True)
