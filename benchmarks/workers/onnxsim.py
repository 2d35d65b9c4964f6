"""onnxsim: simplify, then its static W8A8 or dynamic quantization; or simplify alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxsim  # type: ignore[import-not-found]

from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    simple, _ = onnxsim.simplify(str(model))
    if options.get("simplify_only"):
        onnx.save(simple, out)
    elif options.get("dynamic"):
        onnx.save(onnxsim.quantize_dynamic(simple), out)
    else:
        method = options.get("method", "minmax")
        onnx.save(onnxsim.quantize_static(simple, calibration_data=feeds, method=method), out)


if __name__ == "__main__":
    main(quantize)
