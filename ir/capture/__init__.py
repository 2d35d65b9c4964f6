"""Any source model becomes one `onnx_ir.Model` at the working opset, sound and ready to rewrite."""

from __future__ import annotations

from ir.capture.source import capture
from ir.capture.upgrade import WORKING_IR_VERSION, WORKING_OPSET
from ir.capture.writing import save, to_proto

__all__ = ["WORKING_IR_VERSION", "WORKING_OPSET", "capture", "save", "to_proto"]
