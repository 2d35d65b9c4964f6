"""Tiny models and data as a user has them: files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import ir
from passes.cli import main
from tests.helpers import TINY, tiny_graph


@dataclass(frozen=True)
class Files:
    """`mlp.onnx`, `mlp.npz`, `conv.onnx`, `conv.npz` in a folder of the test's own."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def snapshot(self) -> dict[str, str]:
        """Every file below the folder, hidden ones too, with its digest."""
        return {
            str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(self.folder.rglob("*"))
            if p.is_file()
        }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    for name in ("mlp", "conv"):
        ir.save(tiny_graph(name), tmp_path / f"{name}.onnx")
        feeds = TINY[name].calibration(4)
        joined = {key: np.concatenate([feed[key] for feed in feeds]) for key in feeds[0]}
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, **joined)
    return Files(tmp_path)


@dataclass(frozen=True)
class Ran:
    """What a run of the command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


@pytest.fixture
def ptqc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command in this process."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        status = main([str(one) for one in arguments])
        return Ran(status, *capsys.readouterr())

    return run
