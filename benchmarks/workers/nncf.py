"""NNCF on ONNX: post-training quantization with its defaults, or with model_type TRANSFORMER."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nncf  # type: ignore[import-not-found]
import onnx

from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    kind = nncf.ModelType.TRANSFORMER if options.get("transformer") else None
    quantized = nncf.quantize(
        onnx.load(model), nncf.Dataset(feeds), model_type=kind, subset_size=len(feeds)
    )
    onnx.save(quantized, out)


if __name__ == "__main__":
    main(quantize)
