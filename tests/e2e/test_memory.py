"""Weights in external files stay there: memory-mapped, never copied whole."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import ir
import passes
from passes import Check
from tests.e2e.build import Build

SIDE, LAYERS = 2048, 4
WEIGHTS = SIDE * SIDE * 4 * LAYERS
"""Bytes: 64 MB."""


def anonymous() -> int:
    """Bytes of this process's memory that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@pytest.fixture
def path(tmp_path):
    b = Build(60)
    x = b.input("x", ["n", SIDE])
    with open(tmp_path / "weights.bin", "wb") as file:
        for i in range(LAYERS):
            (b.rng.standard_normal((SIDE, SIDE), np.float32) / 45).tofile(file)
            x = b.op("Tanh", b.op("MatMul", x, f"w{i}"))
    b.output(x, ["n", SIDE])
    model = b.model()
    size = WEIGHTS // LAYERS
    for i in range(LAYERS):
        tensor = onnx.TensorProto(name=f"w{i}", data_type=1, dims=[SIDE, SIDE], data_location=1)
        place = {"location": "weights.bin", "offset": str(i * size), "length": str(size)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.skipif(sys.platform != "linux", reason="counts pages as Linux does")
def test_float_weights_are_not_copied(path):
    feeds = [{"x": np.full((2, SIDE), 0.1, np.float32)}]
    before = anonymous()
    graph = ir.capture(path)
    cleaned = passes.run(graph, "clean", data=feeds)
    assert anonymous() - before < WEIGHTS / 4
    coded = passes.run(graph, "w8a16", data=feeds, check=Check.VERIFY)
    assert anonymous() - before < WEIGHTS * 3 / 4  # the codes are a quarter
    kept = [v.const_value for v in cleaned.graph.graph.initializers.values()]
    assert all(isinstance(t, ir.graph.onnx_ir.ExternalTensor) for t in kept)
    assert len(coded.graph.graph.initializers) == 2 * LAYERS
