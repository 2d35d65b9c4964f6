"""Fashion-MNIST (arXiv:1708.07747) for training: 28 x 28 grey pictures of clothes, 10 classes.

source:   Debian package `dataset-fashion-mnist` (Expat)
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ir.errors import DataError

FOLDER = Path("/usr/share/datasets/fashion-mnist")


def pictures(split: str) -> tuple[Tensor, Tensor]:
    """u8[n, 28, 28] pictures and i64[n] labels of the split `train` (60,000) or `t10k` (10,000).

    Raises DataError, with the command that installs them, where the files are absent.
    """
    images = torch.from_numpy(_read(f"{split}-images-idx3-ubyte.gz", 3))
    return images, torch.from_numpy(_read(f"{split}-labels-idx1-ubyte.gz", 1)).long()


def scaled(images: Tensor) -> Tensor:
    """u8[n, 28, 28] -> f32[n, 1, 28, 28] in -1..1."""
    return images[:, None].float() / 127.5 - 1


def _read(name: str, rank: int) -> np.ndarray:
    file = FOLDER / name
    if not file.is_file():
        hint = "run: apt-get install dataset-fashion-mnist"
        raise DataError("Fashion-MNIST is not installed", at=str(file), hint=hint)
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    codes = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    return codes.reshape(tuple(map(int, shape))).copy()
