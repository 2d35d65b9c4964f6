"""ONNX Runtime's own tools: quantize_static, quantize_dynamic; or its graph clean-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.feeds import Feed
from benchmarks.workers.protocol import main


class Reader(CalibrationDataReader):
    def __init__(self, feeds: list[Feed]) -> None:
        self.feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)


def quantize(model: Path, feeds: list[Feed], out: Path, options: dict[str, Any]) -> None:
    if options.get("clean"):
        session_options = SessionOptions()
        session_options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
        session_options.optimized_model_filepath = str(out)
        InferenceSession(model, session_options)
        return
    if options.get("dynamic"):
        quantize_dynamic(model, out, per_channel=options.get("per_channel", False))
        return
    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        prepared,
        out,
        Reader(feeds),
        per_channel=True,
        reduce_range=options.get("reduce_range", False),
        activation_type=QuantType[options["activation"]],
        weight_type=QuantType[options["weight"]],
        op_types_to_quantize=options.get("ops"),
    )
    prepared.unlink()


if __name__ == "__main__":
    main(quantize)
