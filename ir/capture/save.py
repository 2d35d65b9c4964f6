"""Write a graph as an ONNX file: whole or not at all."""

from __future__ import annotations

import onnx
import onnx_ir as ir


def to_proto(model: ir.Model) -> onnx.ModelProto:
    return ir.to_proto(model)


def save(model: ir.Model, path: str) -> None:
    ir.save(model, path)
