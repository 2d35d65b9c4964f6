"""What `build` makes: a model and a manifest, written whole or not at all, checked when read again.

artifact = backends.build(result, "ort")
artifact.save("net-int8")                 # a folder: model.onnx, manifest.json
backends.load("net-int8").run({"x": x})   # bit-equal outputs
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ir import ops
from ir.capture.writing import save as save_model
from ir.errors import BackendError, OutputError, PtqcError
from ir.graph import Graph, clone, constant

MANIFEST, MODEL, FORMAT = "manifest.json", "model.onnx", 1
_PACKAGES = ("ptqc", "onnxruntime", "onnx", "onnx-ir", "numpy")


@dataclass(frozen=True)
class Manifest:
    """Everything said about an artifact; JSON on disk."""

    target: str
    pipeline: str = ""
    seed: int = 0
    qtypes: dict[str, str] = field(default_factory=dict)
    """Name of every coded value -> QType of its codes."""
    kernels: list[dict[str, str]] = field(default_factory=list)
    """Every node with codes: node, op, kernel ("" is float), reason."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes: `model`, the files; `weights`, all tensors in them."""
    versions: dict[str, str] = field(default_factory=dict)
    session: dict[str, str] = field(default_factory=dict)
    """Session options that the model needs to be run as measured."""
    files: dict[str, str] = field(default_factory=dict)
    """File name -> sha256."""
    format: int = FORMAT

    @property
    def left_float(self) -> list[dict[str, str]]:
        """The nodes with codes that no integer kernel runs, with their reasons."""
        return [kernel for kernel in self.kernels if not kernel["kernel"]]


def describe(
    target: str, result: Any, graph: Graph, sites, pipeline: str = "", seed: int = 0
) -> Manifest:
    """The manifest of a coded graph (before lowering) and its sites; `save` adds the files."""
    report = getattr(result, "report", None)
    return Manifest(
        target,
        pipeline or getattr(report, "pipeline", ""),
        seed or getattr(report, "seed", 0),
        _qtypes(graph),
        [{"node": s.node, "op": s.op, "kernel": s.kernel, "reason": s.reason} for s in sites],
        versions=dict(_versions()),
    )


def _qtypes(graph: Graph) -> dict[str, str]:
    found = {}
    for node in graph.graph.all_nodes():
        if ops.is_op(node, "Decode"):
            found[node.outputs[0].name or ""] = node.overload
    return found


def _versions():
    for name in _PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            yield name, "unknown"


class Artifact:
    """A model that its target runs. `model`: the lowered graph, or the path of one on disk."""

    def __init__(self, manifest: Manifest, model: Graph | Path) -> None:
        self.manifest = manifest
        self.model = model
        self._sessions: dict[int, Any] = {}

    def run(self, feeds: Mapping[str, np.ndarray], threads: int = 0) -> dict[str, np.ndarray]:
        """{output name: array}; the session is made once. Raises DataError, BackendError."""
        return self.session(threads).run(feeds)

    def session(self, threads: int = 0):
        """The target's session (made at the first call)."""
        if threads not in self._sessions:
            from . import target

            self._sessions[threads] = target(self.manifest.target).open(self.model, threads)
        return self._sessions[threads]

    def save(self, path: str | os.PathLike) -> Path:
        """Write the folder `path`, whole or not at all; an artifact that stood there is replaced.

        Raises OutputError when the disk is full, the place is not writable, or something that is no
        artifact stands there.
        """
        place = Path(os.path.realpath(path))
        _check_place(place)
        staged = place.with_name(f".{place.name}.{secrets.token_hex(6)}.tmp")
        try:
            staged.mkdir(parents=False)
            self._write(staged)
            _put(staged, place)
        except PtqcError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write the artifact: {error.strerror or error}", at=path,
                hint="free some space or choose another place; what stood there is untouched",
            ) from error  # fmt: skip
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return Path(path)

    def _write(self, folder: Path) -> None:
        if isinstance(self.model, Path):
            for name in self.manifest.files:
                shutil.copyfile(self.model.parent / name, folder / name)
        else:
            save_model(self.model, folder / MODEL)
        names = sorted(p.name for p in folder.iterdir())
        sizes = {"model": sum((folder / name).stat().st_size for name in names)}
        if isinstance(self.model, Graph):
            sizes["weights"] = _weight_bytes(self.model)
        parts = asdict(self.manifest)
        parts["sizes"] |= sizes
        parts["files"] = {name: digest(folder / name) for name in names}
        (folder / MANIFEST).write_text(json.dumps(parts, indent=1) + "\n")
        for name in (*names, MANIFEST):
            _flush(folder / name)
        _flush(folder)


def _weight_bytes(graph: Graph) -> int:
    values = clone(graph).graph.initializers.values()
    return sum(t.nbytes for t in map(constant, values) if t is not None)


def _check_place(place: Path) -> None:
    if place.is_dir() and any(place.iterdir()) and not (place / MANIFEST).is_file():
        raise OutputError(
            "a folder that is no artifact stands there", at=place,
            hint="choose another name, or remove it",
        )  # fmt: skip
    if place.exists() and not place.is_dir():
        raise OutputError("a file stands there", at=place, hint="choose another name, or remove it")


def _put(staged: Path, place: Path) -> None:
    """Rename into place; what stood there goes only when the new folder stands."""
    if not place.exists():
        os.replace(staged, place)
        return
    old = place.with_name(f".{place.name}.{secrets.token_hex(6)}.old")
    os.replace(place, old)
    try:
        os.replace(staged, place)
    except OSError:
        os.replace(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | os.PathLike) -> Artifact:
    """Read an artifact's folder; raises BackendError when it is missing, damaged or too new."""
    folder = Path(path)
    manifest = _read_manifest(folder)
    for name, expected in manifest.files.items():
        if os.path.basename(name) != name:
            raise _damaged(folder, f"the manifest names a file outside the folder: {name}")
        file = folder / name
        if not file.is_file():
            raise _damaged(folder, f"{name} is missing")
        if digest(file) != expected:
            raise _damaged(folder, f"{name} is not the file that was saved")
    if MODEL not in manifest.files:
        raise _damaged(folder, f"the manifest lists no {MODEL}")
    return Artifact(manifest, folder / MODEL)


def _read_manifest(folder: Path) -> Manifest:
    try:
        parts = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        raise BackendError(
            f"no {MANIFEST} there", at=folder, hint="give the folder that `ptqc quantize -o` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read: {error}") from error
    found = parts.get("format") if isinstance(parts, dict) else None
    if found != FORMAT:
        raise BackendError(
            f"the artifact has format {found}, this ptqc reads {FORMAT}", at=folder,
            hint="build it again",
        )  # fmt: skip
    try:
        return Manifest(**parts)
    except TypeError as error:
        raise _damaged(folder, f"{MANIFEST} has other fields: {error}") from error


def _damaged(folder: Path, cause: str) -> BackendError:
    return BackendError(cause, at=folder, hint="the artifact is damaged: build or copy it again")
