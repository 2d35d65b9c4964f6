"""ONNX Runtime on the CPU."""

from .target import Ort

TARGET = Ort()

__all__ = ["TARGET", "Ort"]
