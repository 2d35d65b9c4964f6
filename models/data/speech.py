"""Recordings of speech for calibration: 16 kHz mono float waveforms out of wav files.

No package carries real speech, so the files are looked for: the folder `PTQC_SPEECH`, else the
Free Spoken Digit Dataset (CC BY-SA 4.0) at `$PTQC_SHARED/data/fsdd` or `../shared/data/fsdd`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from ir.errors import DataError

RATE = 16000


def folder() -> Path:
    """The folder of wav files. Raises DataError, saying how to get one, when there is none."""
    shared = Path(os.environ.get("PTQC_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    for place in (os.environ.get("PTQC_SPEECH"), shared / "data" / "fsdd"):
        if place and any(Path(place).glob("*.wav")):
            return Path(place)
    raise DataError(
        "no folder of speech recordings",
        at=str(shared / "data" / "fsdd"),
        hint="set PTQC_SPEECH to a folder of wav files (espeak-ng -w can make some)",
    )


def recordings() -> list[Path]:
    return sorted(folder().glob("*.wav"))


def read(file: Path) -> np.ndarray:
    """f32[samples] in -1..1 at 16 kHz; channels are averaged."""
    rate, samples = wavfile.read(file)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    scale = np.iinfo(samples.dtype).max if samples.dtype.kind == "i" else 1.0
    return resample_poly(samples / scale, RATE, rate).astype(np.float32)


def utterances(n: int, *, part: int, words: int = 4) -> list[np.ndarray]:
    """n waveforms, each of `words` recordings after another; parts 0 and 1 share no recording."""
    files = recordings()[part::2]
    rng = np.random.default_rng(part)
    chosen = rng.integers(len(files), size=(n, words))
    return [np.concatenate([read(files[i]) for i in row]) for row in chosen]
