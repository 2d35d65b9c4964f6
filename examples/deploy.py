"""The library's main path: quantize a torch module, save it, and run it where it is deployed.

python -m examples.deploy [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import backends
import ir
import passes
from models.tiny import conv


def main(folder: Path) -> None:
    net = conv.load()
    graph = ir.capture(net, conv.example())  # or the path of an ONNX file
    result = passes.run(graph, "w8a8", data=conv.calibration(16))
    backends.build(result, "ort").save(folder)

    artifact = backends.load(folder)  # a process of its own: only the folder is needed
    feed = conv.evaluation(1)[0]
    (logits,) = artifact.run(feed).values()
    (expected,) = backends.build(graph, "ort").run(feed).values()
    print(f"float    {np.round(expected[0, :6], 3)}\nint8     {np.round(logits[0, :6], 3)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary) / "artifact")
