"""onnxslim: its clean-up; it quantizes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxslim  # type: ignore[import-not-found]

from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    onnx.save(onnxslim.slim(onnx.load(model)), out)


if __name__ == "__main__":
    main(quantize)
