"""ptqc itself, the way a user calls it: capture, run a recipe, build for ONNX Runtime, save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backends
import ir
import passes
from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main
from passes import registry

registry.passes()  # load what loads lazily: peers are not charged for their imports either
backends.target("ort")


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    """Option `recipe`: a pipeline. Option `float`: write the float graph that it leaves."""
    graph = ir.capture(model)
    if options.get("float"):
        ir.save(passes.run(graph, options["recipe"], data=feeds).graph, out)
        return
    result = passes.run(graph, options["recipe"], data=feeds)
    backends.build(result, "ort").save(out)


if __name__ == "__main__":
    main(quantize)
