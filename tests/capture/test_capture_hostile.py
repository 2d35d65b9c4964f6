"""External data that leaves its folder or falls short; local functions without end."""

import os

import onnx
import pytest
from onnx import TensorProto, parser

from tests.capture.refusing import good, refuse


def external(folder, location: str, size: int = 48, **entries) -> str:
    """A model file in `folder` whose weight 'w' lies at `location`."""
    model = good()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(bytes(size))
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize(("location", "message"), [
    ("../w.bin", "leaves the model's folder"),
    ("sub/../../w.bin", "leaves the model's folder"),
    ("/etc/hostname", "leaves the model's folder"),
    ("link.bin", "leaves the model's folder"),
    ("link/w.bin", "leaves the model's folder"),
    (".", "leaves the model's folder"),
    ("", "names no file"),
    ("a\0b", "names no file"),
    ("absent.bin", "is missing"),
    ("folder", "not a plain file"),
    ("pipe", "not a plain file"),
    ("hard.bin", "not a plain file"),
])  # fmt: skip
def test_external_data_stays_in_the_models_folder(tmp_path, location, message):
    (tmp_path / "w.bin").write_bytes(bytes(48))
    folder = tmp_path / "model"
    path = external(folder, location)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "link").symlink_to(tmp_path)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    os.link(tmp_path / "w.bin", folder / "hard.bin")
    refuse(path, message)


@pytest.mark.parametrize(("size", "entries", "message"), [
    (47, {}, "has 47 bytes; 48 are needed"),
    (48, {"offset": 4}, "has 48 bytes; 48 are needed from byte 4"),
    (48, {"offset": -4}, "from byte -4"),
    (96, {"length": 96}, "needs 48 bytes, the data has 96"),
    (48, {"offset": "x"}, "not a number"),
    (48, {"offset": 10**30}, "from byte 1000"),
])  # fmt: skip
def test_external_data_must_hold_the_tensor(tmp_path, size, entries, message):
    refuse(external(tmp_path, "w.bin", size, **entries), message)


def test_external_data_needs_a_folder(tmp_path):
    proto = onnx.load(external(tmp_path, "w.bin"), load_external_data=False)
    refuse(proto, "came without a folder")


def functions(*bodies: str) -> onnx.ModelProto:
    texts = [
        f'<domain: "f", opset_import: ["": 17, "f": 1]> {name} (x) => (y) {{ {body} }}'
        for name, body in (text.split(":", 1) for text in bodies)
    ]
    return parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y) '
        "{ y = f.A(x) }" + "\n".join(texts)
    )


def test_functions_that_call_themselves():
    refuse(functions("A: y = f.A(x)"), "call themselves: A")
    refuse(functions("A: y = f.B(x)", "B: y = f.A(x)"), "call themselves")


def test_functions_that_explode():
    bodies = [f"F{i}: a = f.F{i + 1}(x) y = f.F{i + 1}(a)" for i in range(40)]
    refuse(functions("A: y = f.F0(x)", *bodies, "F40: y = Relu(x)"), "expand to 1099511627776")


def test_functions_defined_twice():
    refuse(functions("A: y = Relu(x)", "A: y = Abs(x)"), "same name")
