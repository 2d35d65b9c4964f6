"""Reference models for demos, tests and benchmarks: real weights out of registry packages.

Every module here has the same four functions, so that a loop can go over them:

- `load()`: a `torch.nn.Module` in eval mode, or the path of an ONNX file;
- `example()`: the inputs that capture needs, a tuple of tensors (a dict of arrays for ONNX);
- `calibration(n)` and `evaluation(n)`: n seeded feeds, `{input name: array}`, disjoint sources.

`DYNAMIC` says which axes of which input vary. Nothing outside this package, `tests/`,
`benchmarks/`, `examples/` and the demo imports it: a user's own `models/` may shadow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import ir


def capture(model: ModuleType) -> ir.Graph:
    """The float graph of one of this package's modules, its `DYNAMIC` axes kept open.

    The outputs of a torch module are named by the module's `OUTPUTS`.
    """
    net = model.load()
    if isinstance(net, Path):
        return ir.capture(net)
    return named(ir.capture(net, model.example(), dynamic=model.DYNAMIC), model.OUTPUTS)


def named(graph: ir.Graph, outputs: Sequence[str]) -> ir.Graph:
    """The same graph, its outputs renamed in place."""
    for value, name in zip(graph.graph.outputs, outputs, strict=True):
        value.name = name
    return graph
