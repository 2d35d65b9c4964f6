"""A torch module to an int8 artifact: capture, look, quantize, build.

python -m examples.export_torch net-int8
"""

from __future__ import annotations

import sys

import torch
from torch import nn

import backends
import ir
import passes


def network() -> nn.Module:
    """A small image classifier; put your own trained module here."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip


def main(output: str) -> dict[str, float]:
    """SQNR in dB of the graph's outputs before lowering."""
    net = network()
    images = torch.randn(64, 3, 32, 32)

    # Name the axes whose size may change; all others keep the example's.
    batch = torch.export.Dim("batch")
    graph = ir.capture(net, (images[:8],), dynamic=({0: batch},))
    print(ir.show(graph))

    # Any iterable of batches does as calibration data; here the tensors themselves.
    result = passes.run(graph, "w8a8", data=list(images.split(8)))
    artifact = backends.build(result, "ort")
    artifact.save(output)

    name = graph.graph.inputs[0].name or ""
    found = artifact.run({name: images.numpy()}, threads=1)
    with torch.no_grad():
        same = net(images).argmax(1).numpy() == next(iter(found.values())).argmax(1)
    print(f"same class for {same.mean():.0%} of {len(same)} images")
    return result.report.sqnr


if __name__ == "__main__":
    main(sys.argv[1])
