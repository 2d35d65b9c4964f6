"""Recordings of speech: 16 kHz mono float waveforms, with transcripts where there are any.

source       folder, unless the environment variable names another        transcripts
digits       PTQC_SPEECH; `data/fsdd` in $PTQC_SHARED or ../shared        digit in the file's name
prompts      PTQC_PROMPTS; Debian's asterisk-core-sounds-en-wav           none
readings     PTQC_READINGS; Debian's pocketsphinx-testdata                10, all for evaluation
synthetic    the command espeak-ng                                        any

The first is the Free Spoken Digit Dataset (CC BY-SA 4.0). Part 0 (calibration) and part 1
(evaluation) share no recording and no sentence.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile

from calib.data.audio import resample, to_unit
from ir.errors import DataError
from models.data import sentences

RATE = 16000
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
_READINGS = Path("/usr/share/pocketsphinx/test/data")


@dataclass(frozen=True, eq=False)
class Clip:
    """wave: f32[samples] in -1..1 at 16 kHz; text: what is said, None where nobody wrote it."""

    name: str
    wave: np.ndarray
    text: str | None = None


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


def read(file: Path | io.BytesIO) -> np.ndarray:
    """f32[samples] in -1..1 at 16 kHz; channels are averaged."""
    rate, samples = wavfile.read(file)
    samples = to_unit(samples)
    samples = samples.mean(axis=1) if samples.ndim == 2 else samples
    return resample(samples, rate, RATE).astype(np.float32)


def utterances(n: int, *, part: int, words: int = 4) -> list[np.ndarray]:
    """n waveforms, each of `words` recordings after another; parts 0 and 1 share no recording."""
    return [clip.wave for clip in digits(n, part=part, words=words)]


def digits(n: int, *, part: int, words: int = 4) -> list[Clip]:
    """The same as clips; `text` when every file is named by its digit, as in 7_george_15.wav."""
    files = recordings()[part::2]
    chosen = np.random.default_rng(part).integers(len(files), size=(n, words))
    return [_row([files[i] for i in row]) for row in chosen]


def _row(files: list[Path]) -> Clip:
    labels = [re.match(r"(\d)_", file.name) for file in files]
    text = " ".join(DIGITS[int(label[1])] for label in labels if label)
    name = "+".join(file.stem for file in files)
    return Clip(name, np.concatenate([read(file) for file in files]), text if all(labels) else None)


def prompts(n: int, *, part: int, seed: int = 0) -> list[Clip]:
    """n different telephone prompts of one real speaker, 0.8 to 20 s long, without transcripts."""
    place = _place("PTQC_PROMPTS", _PROMPTS, "asterisk-core-sounds-en-wav")
    files = [f for f in sorted(place.rglob("*.wav"))[part::2] if 12800 < f.stat().st_size < 320000]
    if n > len(files):
        raise DataError(f"{n} prompts asked for, part {part} has {len(files)}", at=str(place))
    chosen = np.random.default_rng(seed).choice(len(files), n, replace=False)
    return [Clip(files[i].relative_to(place).as_posix(), read(files[i])) for i in chosen]


def readings() -> list[Clip]:
    """Ten clips with transcripts: five from a novel, five on playing cards. For evaluation only."""
    place = _place("PTQC_READINGS", _READINGS, "pocketsphinx-testdata")
    lists = (place / "librivox" / "transcription", place / "cards" / "cards.transcription")
    found = []
    for file in lists:
        for line in file.read_text().splitlines():
            match = re.match(r"<s>\s*(.*?)\s*</s>\s*\((\S+)\)", line)
            if match:
                found.append(Clip(match[2], read(file.parent / f"{match[2]}.wav"), match[1]))
    return found


def synthetic(n: int, *, part: int, seed: int = 0) -> list[Clip]:
    """n plain sentences of 4 to 20 words spoken by espeak-ng, speed and pitch drawn per clip."""
    command = shutil.which("espeak-ng")
    if command is None:
        raise DataError("espeak-ng is not installed", hint="run: apt install espeak-ng")
    plain = [
        text
        for text in sentences.sample(40 * n, part=part, seed=seed)
        if re.fullmatch(r"[A-Z]?[a-z]+(,? [a-z]+){3,19}[.!?]", text)
    ]
    plain = list(dict.fromkeys(plain))
    if len(plain) < n:
        raise DataError(f"{n} sentences asked for, {len(plain)} are plain enough")
    rng = np.random.default_rng(seed)
    return [_speak(command, text, *rng.integers((130, 30), (180, 70))) for text in plain[:n]]


def _speak(command: str, text: str, speed: int, pitch: int) -> Clip:
    """speed in words per minute, pitch 0 to 99."""
    options = ["-v", "en-us", "-s", str(speed), "-p", str(pitch), "--stdout"]
    made = subprocess.run([command, *options, text], capture_output=True)
    if made.returncode:
        raise DataError(f"espeak-ng failed: {made.stderr.decode(errors='replace').strip()}")
    rate = int.from_bytes(made.stdout[24:28], "little")
    wave = to_unit(np.frombuffer(made.stdout[44:], "<i2"))  # a stream's header has no true length
    return Clip(text, resample(wave, rate, RATE).astype(np.float32), text)


def _place(variable: str, usual: Path, package: str) -> Path:
    place = Path(os.environ.get(variable, usual))
    if not place.is_dir():
        raise DataError(
            "no such folder of speech",
            at=str(place),
            hint=f"run: apt install {package} (or set {variable})",
        )
    return place
