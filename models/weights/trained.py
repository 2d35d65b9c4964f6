"""Weights trained by `models/train`, committed here: NAME.safetensors, NAME.json beside it.

The JSON says how they were made and how well they do; its `sha256` is the pin.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch

from ir.errors import DataError
from models.weights.packages import digest

FOLDER = Path(__file__).parent


def read(name: str, folder: Path = FOLDER) -> dict[str, torch.Tensor]:
    """The state dict. Raises DataError when a file is missing or is not the one described."""
    file, facts = folder / f"{name}.safetensors", folder / f"{name}.json"
    again = f"check the files out again, or run: python -m models.train.{name}"
    if not (file.is_file() and facts.is_file()):
        raise DataError(f"the trained weights of {name} are missing", at=str(file), hint=again)
    if digest(file) != json.loads(facts.read_text())["sha256"]:
        raise DataError("SHA-256 differs from the described one", at=str(file), hint=again)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        hint = "pip install 'ptqc[models]'"
        raise DataError("trained weights need safetensors", hint=hint) from error
    return load_file(file)


def write(name: str, net: torch.nn.Module, facts: dict, folder: Path = FOLDER) -> Path:
    """Saves the state dict of `net` and the facts, with versions, sizes and digest added."""
    from safetensors.torch import save_file

    file = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, file)
    facts = facts | {
        "parameters": sum(p.numel() for p in net.parameters()),
        "bytes": file.stat().st_size,
        "sha256": digest(file),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    (folder / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    return file
