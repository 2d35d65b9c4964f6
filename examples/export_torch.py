"""From a torch module of your own to files: the float model, the 8-bit one, and what it costs.

python -m examples.export_torch [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import backends
import ir
import passes


class Net(nn.Module):
    """Stands for a module of your own."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 256)
        self.down = nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


def main(folder: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    graph = ir.capture(net, (torch.zeros(2, 64),), dynamic={"x": {0: "batch"}})
    ir.save(graph, folder / "net.onnx")

    batches = [{"x": torch.randn(8, 64).numpy()} for _ in range(16)]  # your calibration data
    result = passes.run(graph, "w8a8", data=batches)
    artifact = backends.load(backends.build(result, "ort").save(folder / "net-w8a8"))
    for step in result.report.steps:
        print(f"{step.step:40} {step.changes:4} changes  {step.sqnr or ''}")
    print(
        f"{(folder / 'net.onnx').stat().st_size} bytes -> {artifact.manifest.sizes['model']} bytes"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
