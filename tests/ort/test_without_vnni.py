"""The same numbers on a processor without VNNI, which qemu plays."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backends
from tests.ort.coded import tame, wild
from tests.ort.test_lower_conv import conv
from tests.ort.test_lower_linear import matmul

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
RUN = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, {"x": np.load(sys.argv[2])})[0])
"""
NAIVE = """
import sys
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
x = np.full((4, 32), 255, np.uint8)
weight = np.full((32, 8), 127, np.int8)
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g",
    [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
    [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
    [numpy_helper.from_array(weight, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString())
y = session.run(None, {"x": x})[0]
print("saturates" if (y != 32 * 255 * 127).any() else "exact")
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(QEMU is None, reason="qemu-user is not installed"),
]


def emulated(script: str, *arguments: str | Path) -> str:
    """Run Python as on a Haswell: AVX2, no VNNI."""
    command = [str(QEMU), "-cpu", "Haswell", sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_emulated_processor_really_saturates():
    assert "saturates" in emulated(NAIVE)


@pytest.mark.parametrize("codes", [tame, wild])
@pytest.mark.parametrize("kind", ["matmul", "gemm", "dynamic", "conv", "grouped", "multiplied"])
def test_built_models_compute_the_same_there(kind, codes, tmp_path):
    graph = {
        "matmul": lambda: matmul(codes((33, 8))),
        "gemm": lambda: matmul(codes((8, 33)), op="Gemm", qtype="i8@1x0*f32", transB=1),
        "dynamic": lambda: matmul(codes((33, 8)), dynamic=True),
        "conv": lambda: conv(codes((8, 4, 3, 3))),
        "grouped": lambda: conv(codes((8, 2, 3, 3)), group=2),
        "multiplied": lambda: conv(codes((8, 1, 3, 3)), group=4),
    }[kind]()
    shape = tuple(graph.graph.inputs[0].shape)
    x = np.full(shape, 4.96, np.float32)  # code 255 everywhere but for a few
    x.reshape(-1)[::5] = np.random.default_rng(0).uniform(0, 4.9, x.reshape(-1)[::5].shape)
    artifact = backends.build(graph, "ort")
    path = artifact.save(tmp_path / "net") / "model.onnx"
    np.save(tmp_path / "x.npy", x)
    emulated(RUN, path, tmp_path / "x.npy", tmp_path / "y.npy")
    (here,) = artifact.run({"x": x}, threads=1).values()
    there = np.load(tmp_path / "y.npy")
    assert np.ptp(here) > 0
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-5)
