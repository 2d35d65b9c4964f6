"""Sound files to arrays of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from calib.data.preprocess import AudioOptions, Options, read
from calib.data.signature import Feed, Input
from ir.errors import DataError

SUFFIXES = frozenset({".wav"})


class Audio:
    """.wav files as samples of the graph's one input, shape [1, time] or [1, 1, time].

    raises: DataError when the graph has several inputs or one of another rank (a spectrogram, for
    one), on a length that cannot be read, on a damaged file.
    """

    def __init__(self, paths: Sequence[Path], inputs: Sequence[Input], options: Options) -> None:
        self.paths = paths
        self.options = read(AudioOptions, options)
        if len(inputs) != 1 or inputs[0].shape is None or len(inputs[0].shape) not in (2, 3):
            raise DataError(
                f"sound needs a graph with one input [batch, time] or [batch, 1, time], found"
                f" {', '.join(map(str, inputs))}",
                hint="prepare the inputs yourself and give an .npz or an iterable of dicts",
            )
        self.input = inputs[0]
        self.length = self._length()

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> Iterator[tuple[str, Feed]]:
        for index in indices:
            wave = _read(self.paths[index], self.options.rate)
            wave = wave if self.length is None else fit(wave, self.length)
            shape = (1,) * (len(self.input.shape or ()) - 1) + (-1,)
            yield str(self.paths[index]), {self.input.name: wave.reshape(shape)}

    def _length(self) -> int | None:
        """Samples per clip: what was declared, else what the input's shape fixes."""
        fixed = (self.input.shape or (None,))[-1]
        text = self.options.length
        if text is None:
            return fixed if isinstance(fixed, int) else None
        try:
            seconds = float(text[:-1]) if text.endswith("s") else None
            length = int(text) if seconds is None else round(seconds * (self.options.rate or 0))
        except ValueError:
            length = 0
        if length < 1:
            raise DataError(
                f"preprocessing length={text} cannot be read",
                hint="give samples, or seconds as 30s together with rate=16000",
            )
        return length


def _read(path: Path, rate: int | None) -> np.ndarray:
    import scipy.io.wavfile  # here and below: scipy.signal takes a second to import

    try:
        found, wave = scipy.io.wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"sound cannot be read: {error}", at=path, hint="repair or remove the file"
        ) from error
    if not wave.size:
        raise DataError("sound has no samples", at=path, hint="remove the file")
    wave = to_unit(wave)
    wave = wave.mean(axis=1) if wave.ndim == 2 else wave
    return resample(wave, found, rate or found).astype(np.float32)


def to_unit(wave: np.ndarray) -> np.ndarray:
    """Integer samples to float64 in [-1, 1); floats as they are."""
    if wave.dtype.kind == "f":
        return wave.astype(np.float64)
    middle = 128 if wave.dtype == np.uint8 else 0
    return (wave.astype(np.float64) - middle) / 2.0 ** (8 * wave.dtype.itemsize - 1)


def resample(wave: np.ndarray, found: int, wanted: int) -> np.ndarray:
    """[time] at `found` Hz to [time * wanted / found] with a polyphase low-pass filter."""
    if found == wanted:
        return wave
    import scipy.signal

    common = math.gcd(found, wanted)
    return scipy.signal.resample_poly(wave, wanted // common, found // common)


def fit(wave: np.ndarray, length: int) -> np.ndarray:
    """Cut at the end, or pad the end with silence."""
    return np.pad(wave[:length], (0, max(0, length - len(wave))))
