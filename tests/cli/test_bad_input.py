"""Bad input: one clear line, the right exit status, nothing changed or half-written."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import backends.artifact
import passes.run
from passes.command.screen import write_whole

ROOT = Path(__file__).parents[2]
CAPTURE, DATA, PIPELINE, PASS, BACKEND, OUTPUT = 4, 5, 6, 7, 9, 10


def check(ran, status: int, *words: str) -> None:
    """One line on stderr with a cause and a remedy, nothing on stdout, and that status."""
    errors = [line for line in ran.err.splitlines() if not line.startswith("ptqc: warning:")]
    assert len(errors) == 1, ran.err
    (line,) = errors
    assert line.startswith("ptqc: error: ")
    assert ran.status == status, line
    for word in words:
        assert word.lower() in line.lower(), line
    assert ";" in line, "no remedy"
    assert ran.out == ""
    assert "Traceback" not in line


def edited(files, change: Callable[[onnx.ModelProto], object], name: str = "bad.onnx") -> str:
    model = onnx.load(files["mlp.onnx"])
    change(model)
    Path(files[name]).write_bytes(model.SerializeToString())
    return files[name]


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def wrong_type(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Add", ["x", "ids"], ["sum"]))
    ids = np.zeros(16, np.int64)
    model.graph.initializer.append(numpy_helper.from_array(ids, "ids"))
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))


def absurd_size(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.dims[:] = [1 << 40, 1 << 40]


def wrong_size(model: onnx.ModelProto) -> None:
    weight = next(t for t in model.graph.initializer if len(t.dims) == 2)
    weight.raw_data = numpy_helper.to_array(weight).tobytes()[:-4]


def external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if len(t.dims) == 2)
        weight.ClearField("raw_data")
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)

    return change


def dangling(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def unknown_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOp"


MODELS = {
    "cyclic": (cycle, ("cycl",)),
    "of two types": (wrong_type, ()),
    "absurd size": (absurd_size, ()),
    "too few bytes": (wrong_size, ()),
    "weights missing": (external("gone.bin"), ("gone.bin",)),
    "weights outside": (external("../../../../etc/passwd"), ("passwd",)),
    "weights absolute": (external("/etc/passwd"), ("passwd",)),
    "dangling": (dangling, ("nowhere",)),
    "unknown op": (unknown_op, ("NoSuchOp",)),
}


@pytest.fixture
def quantize(ptqc, files):
    """`ptqc quantize` of the MLP with changes; a failure must leave every file as it was."""

    def run(
        *more: object, model: str | None = None, recipe: str = "w8a8", calib: str | None = "mlp.npz"
    ):
        before = files.snapshot()
        arguments = ["quantize", model or files["mlp.onnx"], "-r", recipe, "-o", files["out"]]
        if calib is not None:
            arguments += ["--calib", files[calib]]
        ran = ptqc(*arguments, *more)
        if ran.status:
            assert files.snapshot() == before
        return ran

    return run


class TestModel:
    @pytest.mark.parametrize("name", MODELS)
    def test_damaged(self, quantize, files, name: str) -> None:
        change, words = MODELS[name]
        check(quantize(model=edited(files, change)), CAPTURE, *words)

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
    def test_truncated(self, quantize, files, share: float) -> None:
        content = Path(files["mlp.onnx"]).read_bytes()
        Path(files["cut.onnx"]).write_bytes(content[: int(len(content) * share)])
        check(quantize(model=files["cut.onnx"]), CAPTURE)

    @pytest.mark.parametrize("content", [b"<html>404</html>", b"\x80\x02}q\x00.", bytes(1000)])
    def test_no_model_at_all(self, quantize, files, content: bytes) -> None:
        Path(files["page.onnx"]).write_bytes(content)
        check(quantize(model=files["page.onnx"]), CAPTURE, "page.onnx")

    def test_missing(self, quantize, files) -> None:
        check(quantize(model=files["no.onnx"]), CAPTURE, "no.onnx")

    def test_folder(self, quantize, files) -> None:
        check(quantize(model=files[""]), CAPTURE)

    def test_nothing_to_quantize(self, quantize, files) -> None:
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy")
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
        onnx.save(helper.make_model(graph), files["relu.onnx"])
        np.savez(files["x.npz"], x=np.ones((2, 4), np.float32))
        check(quantize(model=files["relu.onnx"], calib="x.npz"), PASS, "matched nothing")


class TestData:
    def arrays(self, files, **arrays: np.ndarray) -> str:
        np.savez(files["bad.npz"], allow_pickle=True, **arrays)
        return "bad.npz"

    def test_no_batches(self, quantize, files) -> None:
        check(quantize(calib=self.arrays(files, x=np.zeros((0, 16), np.float32))), DATA, "no")

    def test_wrong_shape(self, quantize, files) -> None:
        bad = self.arrays(files, x=np.zeros((4, 17), np.float32))
        check(quantize(calib=bad), DATA, "x", "16", "17")

    def test_wrong_type(self, quantize, files) -> None:
        bad = self.arrays(files, x=np.full((4, 16), "a"))
        check(quantize(calib=bad), DATA, "x")

    def test_objects(self, quantize, files) -> None:
        bad = self.arrays(files, x=np.array([{}] * 4, dtype=object))
        check(quantize(calib=bad), DATA, "bad.npz")

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, quantize, files, poison: float) -> None:
        numbers = np.zeros((4, 16), np.float32)
        numbers[2, 3] = poison
        check(
            quantize(calib=self.arrays(files, x=numbers)),
            DATA,
            "x",
            "NaN" if poison != poison else "Inf",
        )

    def test_not_finite_only_inside_the_model(self, quantize, files) -> None:
        huge = np.full((4, 16), 3e38, np.float32)
        check(quantize(calib=self.arrays(files, x=huge)), DATA, "gelu", "NaN")

    def test_wrong_names(self, quantize, files) -> None:
        two = {"a": np.zeros((4, 16), np.float32), "b": np.zeros((4, 16), np.float32)}
        check(quantize(calib=self.arrays(files, **two)), DATA, "x", "a")

    def test_missing(self, quantize) -> None:
        check(quantize(calib="gone.npz"), DATA, "gone.npz")

    def test_damaged(self, quantize, files) -> None:
        Path(files["bad.npz"]).write_bytes(Path(files["mlp.npz"]).read_bytes()[:300])
        check(quantize(calib="bad.npz"), DATA, "bad.npz")

    def test_empty_folder(self, quantize, files) -> None:
        Path(files["none"]).mkdir()
        check(quantize(calib="none"), DATA, "none")

    def test_folder_of_nothing_known(self, quantize, files) -> None:
        Path(files["odd"]).mkdir()
        Path(files["odd"], "a.xyz").write_text("?")
        check(quantize(calib="odd"), DATA, "known")

    def test_preprocessing_that_does_not_exist(self, quantize) -> None:
        check(quantize("--preprocess", "resize=256"), DATA)


class TestRecipe:
    def test_unknown(self, quantize) -> None:
        check(quantize(recipe="w8a9"), PIPELINE, "w8a9", "did you mean w8a8")

    def test_unknown_option(self, quantize) -> None:
        check(quantize("--set", "clap=mse"), PIPELINE, "clap", "clip")

    def test_unknown_value(self, quantize) -> None:
        check(quantize("--set", "clip=huge"), PIPELINE, "huge", "minmax")

    def test_bad_type(self, quantize) -> None:
        check(quantize("--set", "a=u9@0"), PIPELINE, "u9@0")

    def test_unreadable_selector(self, quantize) -> None:
        check(quantize("--keep", "the head"), PIPELINE, "the head")

    def test_option_of_a_text(self, quantize) -> None:
        check(quantize("--keep", "last", recipe="clean | rtn"), PIPELINE, "recipe's name")

    def test_no_data(self, quantize) -> None:
        check(quantize(calib=None), PIPELINE, "calibration data", "--calib")

    def test_wrong_order(self, quantize) -> None:
        check(quantize(recipe="clip | collect"), PIPELINE, "step 1 'clip'")

    def test_unknown_target(self, quantize) -> None:
        check(quantize("--target", "tpu"), BACKEND, "tpu", "ort")

    def test_explain_of_nothing(self, ptqc) -> None:
        check(ptqc("explain", "clop"), PIPELINE, "clop", "clip")

    @pytest.mark.parametrize(
        "wrong",
        [
            ["quantise"],
            ["quantize"],
            ["bench", "x", "--threads", "0"],
            ["inspect", "x", "--dims", "a"],
        ],
    )
    def test_wrong_use(self, ptqc, wrong: list[str]) -> None:
        ran = ptqc(*wrong)
        assert ran.status == 2
        assert ran.err.startswith("ptqc: error: ")
        assert "--help" in ran.err
        assert len(ran.err.splitlines()) == 1


class TestOutput:
    def test_folder_missing(self, quantize, files) -> None:
        check(quantize("-o", files["no/such/out"]), OUTPUT, "no/such")

    def test_a_file_in_the_way(self, quantize, files) -> None:
        check(quantize("-o", files["mlp.npz"]), OUTPUT, "mlp.npz")

    def test_never_over_the_float_model(self, quantize, files) -> None:
        check(quantize("-o", files["mlp.onnx"]), OUTPUT, "replace an input")

    def test_never_over_a_folder_of_something_else(self, quantize, files) -> None:
        Path(files["thesis"]).mkdir()
        Path(files["thesis"], "chapter1.txt").write_text("It was")
        check(quantize("-o", files["thesis"]), OUTPUT, "thesis")

    @pytest.mark.parametrize("option", ["--json", "--html", "--resume"])
    def test_other_results_too(self, quantize, files, option: str) -> None:
        check(quantize(option, files["no/such/file"]), OUTPUT, option)

    def test_disk_full_while_writing(self, quantize, files, monkeypatch) -> None:
        """A limit on file sizes makes the system refuse inside the file, like a full disk."""
        save, soft = backends.artifact.save_model, resource.getrlimit(resource.RLIMIT_FSIZE)

        def on_a_full_disk(model, path):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, soft[1]))
            try:
                return save(model, path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, soft)

        monkeypatch.setattr(backends.artifact, "save_model", on_a_full_disk)
        check(quantize(), OUTPUT, "cannot write")

    def test_disk_full_leaves_the_artifact_before(self, quantize, files, monkeypatch) -> None:
        assert quantize().status == 0
        self.test_disk_full_while_writing(quantize, files, monkeypatch)
        assert backends.load(files["out"]).manifest.pipeline

    def test_disk_full_for_the_report(self, files) -> None:
        Path(files["facts.json"]).write_text("before")
        soft = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, soft[1]))
        try:
            with pytest.raises(Exception, match="cannot write"):
                write_whole(Path(files["facts.json"]), "x" * 10000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        assert Path(files["facts.json"]).read_text() == "before"
        assert not [name for name in files.snapshot() if name.endswith(".tmp")]

    def test_disk_full_for_the_whole_process(self, files) -> None:
        """Nothing can be written anywhere, not even what ONNX Runtime writes for itself."""
        before = files.snapshot()
        code = (
            "import resource, sys; from passes.cli import main;"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048)); sys.exit(main(sys.argv[1:]))"
        )
        arguments = ["quantize", files["mlp.onnx"], "-r", "w8a8", "--calib", files["mlp.npz"]]
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments, "-o", files["out"]],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert ran.returncode in (BACKEND, OUTPUT), ran.stderr
        assert ran.stderr.splitlines()[-1].startswith("ptqc: error: ")
        assert "space" in ran.stderr
        assert files.snapshot() == before


class TestDefects:
    @pytest.fixture
    def broken(self, monkeypatch):
        def fail(*_, **__):
            raise ZeroDivisionError("division\nby zero")

        monkeypatch.setattr(passes.run.__globals__["backends"], "target", fail)

    def test_one_line_and_how_to_get_more(self, quantize, broken) -> None:
        check(quantize(), 1, "defect of ptqc", "ZeroDivisionError: division by zero", "--traceback")

    def test_traceback_on_request(self, quantize, broken) -> None:
        ran = quantize("--traceback")
        assert ran.status == 1
        assert "Traceback (most recent call last)" in ran.err

    def test_a_crash_folder_repeats_the_failure(self, ptqc, files) -> None:
        huge = np.full((4, 16), 3e38, np.float32)
        np.savez(files["huge.npz"], x=huge)
        ran = ptqc("quantize", files["mlp.onnx"], "-r", "w8a8", "--calib", files["huge.npz"],
                   "-o", files["out"], "--crash-dir", files["crash"])  # fmt: skip
        check(ran, DATA, "'collect'")
        (folder,) = Path(files["crash"]).iterdir()
        again = subprocess.run([sys.executable, "-m", "passes", folder], cwd=ROOT,
                               capture_output=True, text=True)  # fmt: skip
        assert again.returncode == DATA
        assert "'collect'" in again.stderr


class TestArtifact:
    def test_damaged_artifact(self, quantize, ptqc, files) -> None:
        assert quantize().status == 0
        model = Path(files["out"], "model.onnx")
        content = bytearray(model.read_bytes())
        content[len(content) // 2] ^= 1
        model.write_bytes(content)
        for words in (["bench"], ["compare", files["mlp.onnx"]]):
            more = ["--data", files["mlp.npz"]]
            check(ptqc(*words, files["out"], *more), BACKEND, "not the file that was saved")

    def test_another_models_artifact(self, quantize, ptqc, files) -> None:
        assert quantize().status == 0
        ran = ptqc("compare", files["conv.onnx"], files["out"], "--data", files["conv.npz"])
        check(ran, DATA, "x")
