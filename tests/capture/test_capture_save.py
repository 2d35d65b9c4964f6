"""Saving is all or nothing, whatever interrupts it."""

import errno
import importlib
import os
import resource

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from ir.capture import capture, save, to_proto
from ir.errors import OutputError
from tests.capture.running import assert_same, run

WRITING = importlib.import_module(save.__module__)
X = np.random.default_rng(0).standard_normal((2, 40)).astype(np.float32)


def model(seed: int = 0) -> ir.Model:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N,40] x) => (float[N,30] y) { a = MatMul(x, w) b = Add(a, c) y = Add(b, w2) }
    """)
    rng = np.random.default_rng(seed)
    for name, shape in (("w", (40, 30)), ("c", (30,)), ("w2", (1, 30))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return capture(proto)


def files(folder) -> list[str]:
    return sorted(os.listdir(folder))


def test_one_file(tmp_path):
    path = save(model(), tmp_path / "m.onnx")
    assert files(tmp_path) == ["m.onnx"]
    assert_same(run(capture(path), {"x": X}), run(model(), {"x": X}))


def test_external_weights_and_saving_over_their_own_file(tmp_path):
    path = save(model(), tmp_path / "m.onnx", external=True)
    assert len(files(tmp_path)) == 2
    assert files(tmp_path)[0].startswith("m-")
    again = capture(path)
    tensor = again.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert isinstance(again.graph.initializers["c"].const_value, ir.Tensor)
    assert_same(run(again, {"x": X}), run(model(), {"x": X}))
    before = files(tmp_path)
    save(again, path, external=True)
    assert files(tmp_path) == before
    assert_same(run(capture(path), {"x": X}), run(model(), {"x": X}))
    onnx.checker.check_model(str(path), full_check=True)


def test_another_models_weights_are_not_overwritten(tmp_path):
    save(model(0), tmp_path / "m.onnx", external=True)
    (tmp_path / "m.onnx").rename(tmp_path / "old.onnx")
    save(model(1), tmp_path / "m.onnx", external=True)
    for name, seed in (("old.onnx", 0), ("m.onnx", 1)):
        assert_same(run(capture(tmp_path / name), {"x": X}), run(model(seed), {"x": X}))


def test_auto_splits_large_models(tmp_path, monkeypatch):
    monkeypatch.setattr(WRITING, "_LARGEST_INLINE", 1000)
    save(model(), tmp_path / "m.onnx")
    assert len(files(tmp_path)) == 2
    with pytest.raises(OutputError, match="do not fit one protobuf; save with external=True"):
        save(model(), tmp_path / "n.onnx", external=False)
    assert len(files(tmp_path)) == 2


def test_to_proto_holds_everything(tmp_path):
    path = save(model(), tmp_path / "m.onnx", external=True)
    proto = to_proto(capture(path))
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert_same(run(proto, {"x": X}), run(model(), {"x": X}))


class Disk:
    """Counts what the process asks of the disk and fails at one chosen step."""

    def __init__(self, monkeypatch, step: int, error: BaseException) -> None:
        self.left, self.error = step, error
        for name in ("fsync", "replace"):
            monkeypatch.setattr(WRITING.os, name, self.wrap(getattr(os, name)))

    def wrap(self, real):
        def call(*args):
            self.left -= 1
            if self.left < 0:
                raise self.error
            return real(*args)

        return call


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"),
                                   KeyboardInterrupt()])  # fmt: skip
def test_failure_at_any_step_leaves_the_old_file_and_nothing_new(
    tmp_path, monkeypatch, external, error
):
    path = save(model(0), tmp_path / "m.onnx", external=external)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    failures = 0
    for step in range(20):
        with monkeypatch.context() as patch:
            Disk(patch, step, error)
            try:
                save(model(1), path, external=external)
            except (OutputError, KeyboardInterrupt):
                failures += 1
            else:
                break
        if (tmp_path / "m.onnx").read_bytes() == before["m.onnx"]:
            assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
        else:
            break
    assert failures >= (4 if external else 2)
    assert_same(run(capture(path), {"x": X}), run(model(1), {"x": X}))


@pytest.mark.parametrize("external", [False, True])
def test_a_write_that_the_system_cuts_short(tmp_path, external):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OutputError, match="File too large") as info:
            save(model(), tmp_path / "m.onnx", external=external)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == []
    assert info.value.exit_code == 10
    assert info.value.hint


def test_only_plain_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OutputError, match="not a plain file"):
            save(model(), tmp_path / name)
    assert files(tmp_path) == ["folder", "pipe"]


def test_missing_folder(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        save(model(), tmp_path / "absent" / "m.onnx")


def test_a_symlink_keeps_pointing(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "m.onnx")
    save(model(), tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert files(tmp_path / "real") == ["m.onnx"]
