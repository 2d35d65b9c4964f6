"""onnx-quantize: per-tensor static or dynamic W8A8 (its per-channel form crashes at run time)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter
from onnx_quantize import QConfig  # type: ignore[import-not-found]
from onnx_quantize import quantize as peer_quantize

from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    if options.get("dynamic"):
        config = QConfig(is_static=False)
    else:  # it takes one array, so only models of one input can be calibrated
        data = np.concatenate([next(iter(feed.values())) for feed in feeds])
        config = QConfig(is_static=True, calibration_data=data)
    moved = version_converter.convert_version(onnx.load(model), 21)  # the opset it writes for
    onnx.save(peer_quantize(moved, config), out)


if __name__ == "__main__":
    main(quantize)
