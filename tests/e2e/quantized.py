"""Models that arrive quantized, as ONNX Runtime's own tools write them."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization as tools

from tests.e2e.build import Build

F = np.float32


def plain(seed=30):
    """The float model behind all of them: two Convs, a pooling, a MatMul with bias, a Gemm."""
    b = Build(seed)
    x = b.input("x", ["n", 8, 10, 10])
    h = b.op("Relu", b.op("Conv", x, b.weight(16, 8, 3, 3), b.weight(16, scale=0.2), pads=[1] * 4))
    h = b.op("Conv", h, b.weight(16, 16, 3, 3), strides=[2, 2])
    h = b.op("Add", h, b.op("AveragePool", h, kernel_shape=[3, 3], pads=[1] * 4))
    h = b.op("Flatten", b.op("GlobalAveragePool", h))
    h = b.op("Sigmoid", b.op("Add", b.op("MatMul", h, b.weight(16, 24, scale=1.0)), b.weight(24)))
    b.output(b.op("Gemm", h, b.weight(24, 6), b.weight(6), out="y"), ["n", 6])
    feeds = [{"x": b.rng.normal(size=(4, 8, 10, 10)).astype(F)} for _ in range(6)]
    return b.model(17), feeds


class _Reader(tools.CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def _quantized(work):
    model, feeds = plain()
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "float.onnx"), Path(folder, "made.onnx")
        onnx.save(model, source)
        work(source, made, feeds)
        return onnx.load(made), feeds


def dynamic():
    """DynamicQuantizeLinear before MatMulInteger and ConvInteger."""
    return _quantized(
        lambda a, b, feeds: tools.quantize_dynamic(a, b, weight_type=tools.QuantType.QUInt8)
    )


def _static(form, weight, per_channel):
    return _quantized(
        lambda a, b, feeds: tools.quantize_static(
            a,
            b,
            _Reader(feeds),
            quant_format=form,
            per_channel=per_channel,
            activation_type=tools.QuantType.QUInt8,
            weight_type=weight,
        )
    )


QUANTIZED = {
    "dynamic": dynamic,
    "qdq": lambda: _static(tools.QuantFormat.QDQ, tools.QuantType.QInt8, True),
    "qoperator": lambda: _static(tools.QuantFormat.QOperator, tools.QuantType.QUInt8, False),
}
