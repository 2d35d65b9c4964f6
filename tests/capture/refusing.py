"""A sound model to damage, and the check that capture refuses what came of it."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from ir.capture import capture
from ir.errors import CaptureError

GOOD = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[?,4] x) => (float[?,3] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
        y = MatMul(x, w)
    }
"""


def good() -> onnx.ModelProto:
    return parser.parse_model(GOOD)


def refuse(source, message: str, **kwargs) -> CaptureError:
    with pytest.raises(CaptureError, match=message) as info:
        capture(source, **kwargs)
    assert "\n" not in str(info.value)
    return info.value


def graph_of(*nodes: str, inputs: str = "float[2] x", outputs: str = "float[2] y") -> str:
    head = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs})'
    return f"{head} {{ {' '.join(nodes)} }}"
