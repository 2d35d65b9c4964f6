"""ptqc itself, the way a user calls it: capture, run a recipe, build for ONNX Runtime, save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import backends
import calib
import ir
import passes
from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main
from passes import registry
from passes.loop import Check

ROWS = 8
"""Rows of equal shapes that are run together: what `ptqc quantize` does with data from a file."""

registry.passes()  # load what loads lazily: peers are not charged for their imports either
backends.target("ort")


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    """Option `recipe`: a pipeline. Option `float`: write the float graph that it leaves.

    Option `unchecked`: as a peer works, without executing the graph before and after.
    """
    graph = ir.capture(model)
    if options.get("float"):
        data = calib.data.load(feeds, graph, batch_size=ROWS)
        check = Check.NONE if options.get("unchecked") else Check.COMPARE
        ir.save(passes.run(graph, options["recipe"], data=data, check=check).graph, out)
        return
    data = calib.data.load(feeds, graph, batch_size=ROWS)
    result = passes.run(graph, options["recipe"], data=data)
    backends.build(result, "ort").save(out)


if __name__ == "__main__":
    main(quantize)
