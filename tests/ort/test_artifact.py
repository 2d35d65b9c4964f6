"""The artifact: bit-equal after reading, whole or not there, and honest about damage."""

import json
import os

import numpy as np
import pytest

import backends
from backends.artifact import MANIFEST, MODEL
from ir.errors import BackendError, DataError, OutputError
from tests.ort.coded import steps, tame
from tests.ort.test_lower_conv import conv
from tests.ort.test_lower_linear import SCALE, ZERO, matmul

X = {"x": steps((5, 33), SCALE, ZERO)}


@pytest.fixture
def artifact():
    return backends.build(matmul(tame((33, 8))), "ort", pipeline="rtn", seed=7)


def test_it_reads_back_bit_equal(artifact, tmp_path):
    path = artifact.save(tmp_path / "net")
    again = backends.load(path)
    before, after = artifact.run(X, threads=1), again.run(X, threads=1)
    assert list(before) == list(after)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
        assert np.abs(value).max() > 1
    assert again.manifest.pipeline == "rtn"
    assert again.manifest.seed == 7
    assert again.manifest.kernels == artifact.manifest.kernels
    assert again.manifest.sizes["model"] == (path / MODEL).stat().st_size
    assert 33 * 8 < again.manifest.sizes["weights"] < again.manifest.sizes["model"]


def test_a_read_artifact_can_be_saved_elsewhere(artifact, tmp_path):
    first = backends.load(artifact.save(tmp_path / "one"))
    second = first.save(tmp_path / "two")
    assert (second / MODEL).read_bytes() == (tmp_path / "one" / MODEL).read_bytes()
    assert backends.load(second).manifest == first.manifest


def test_saving_replaces_an_artifact_and_leaves_nothing_else(artifact, tmp_path):
    artifact.save(tmp_path / "net")
    other = backends.build(conv(tame((8, 4, 3, 3))), "ort")
    other.save(tmp_path / "net")
    assert [kernel["op"] for kernel in backends.load(tmp_path / "net").manifest.kernels] == ["Conv"]
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_it_does_not_replace_what_is_no_artifact(artifact, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="no artifact stands there"):
        artifact.save(tmp_path / "mine")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="a file stands there"):
        artifact.save(tmp_path / "file")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_failing_write_leaves_the_old_artifact(artifact, tmp_path, monkeypatch):
    artifact.save(tmp_path / "net")
    before = {p.name: p.read_bytes() for p in (tmp_path / "net").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        artifact.save(tmp_path / "net")
    assert {p.name: p.read_bytes() for p in (tmp_path / "net").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_missing_folder_above_is_said(artifact, tmp_path):
    with pytest.raises(OutputError, match="cannot write the artifact"):
        artifact.save(tmp_path / "not" / "there")


def test_damage_is_found(artifact, tmp_path):
    path = artifact.save(tmp_path / "net")
    content = bytearray((path / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (path / MODEL).write_bytes(content)
    with pytest.raises(BackendError, match="not the file that was saved"):
        backends.load(path)
    (path / MODEL).unlink()
    with pytest.raises(BackendError, match="is missing"):
        backends.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "has format 99"),
        ({"colour": "red"}, "other fields"),
        ({"files": {"../secret": "0"}}, "outside the folder"),
        ({"files": {}}, "lists no model"),
        ({"target": "abacus"}, "no target is called"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(artifact, tmp_path, change, said):
    path = artifact.save(tmp_path / "net")
    parts = json.loads((path / MANIFEST).read_text()) | change
    (path / MANIFEST).write_text(json.dumps(parts))
    with pytest.raises(BackendError, match=said):
        backends.load(path).run(X)


@pytest.mark.parametrize("text", ["{", "[]", '"a"', "\udcff"])
def test_a_manifest_that_is_not_json_is_refused(artifact, tmp_path, text):
    path = artifact.save(tmp_path / "net")
    (path / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BackendError):
        backends.load(path)


def test_no_artifact_at_all(tmp_path):
    with pytest.raises(BackendError, match="no manifest"):
        backends.load(tmp_path)


def test_wrong_feeds_are_said(artifact):
    with pytest.raises(DataError, match="no data for input x"):
        artifact.run({"y": X["x"]})
    with pytest.raises(BackendError, match="cannot run the model"):
        artifact.run({"x": np.zeros((2, 3, 4, 5), np.float32)})
