"""A checkpoint that a killed run leaves whole: written beside and renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def write(path: Path, whole: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        torch.save(whole, file)
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)
