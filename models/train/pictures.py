"""Fashion-MNIST: 60,000 and 10,000 grey pictures of clothes, 28 x 28, in 10 classes.

source:   Debian package `dataset-fashion-mnist` (Expat): arXiv:1708.07747
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from ir.errors import DataError

FOLDER = Path("/usr/share/datasets/fashion-mnist")


def pictures(split: str) -> tuple[np.ndarray, np.ndarray]:
    """u8[n, 28, 28] and u8[n] labels; split `train` (60,000) or `t10k` (10,000).

    Raises DataError, with the command that installs them, where the files are absent.
    """
    return _read(f"{split}-images-idx3-ubyte.gz", 3), _read(f"{split}-labels-idx1-ubyte.gz", 1)


def _read(name: str, rank: int) -> np.ndarray:
    file = FOLDER / name
    if not file.is_file():
        hint = "run: apt-get install dataset-fashion-mnist"
        raise DataError("Fashion-MNIST is not installed", at=str(file), hint=hint)
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">u4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(map(int, shape)))
