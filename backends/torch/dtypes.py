"""Element types between ONNX, numpy and torch.

A type that torch lacks is held, one element per entry, in the smallest torch type that contains
all its values: int4/int2 in int8, uint4/uint2 in uint8, the 4 and 6 bit floats in float8_e4m3fn.
Strings stay numpy arrays of objects.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from onnx_ir import DataType

TORCH_DTYPES: dict[DataType, torch.dtype] = {
    DataType.FLOAT: torch.float32,
    DataType.DOUBLE: torch.float64,
    DataType.FLOAT16: torch.float16,
    DataType.BFLOAT16: torch.bfloat16,
    DataType.UINT8: torch.uint8,
    DataType.INT8: torch.int8,
    DataType.UINT16: torch.uint16,
    DataType.INT16: torch.int16,
    DataType.UINT32: torch.uint32,
    DataType.INT32: torch.int32,
    DataType.UINT64: torch.uint64,
    DataType.INT64: torch.int64,
    DataType.BOOL: torch.bool,
    DataType.COMPLEX64: torch.complex64,
    DataType.COMPLEX128: torch.complex128,
    DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    DataType.FLOAT8E5M2: torch.float8_e5m2,
    DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    DataType.FLOAT8E8M0: torch.float8_e8m0fnu,
    DataType.INT4: torch.int8,
    DataType.INT2: torch.int8,
    DataType.UINT4: torch.uint8,
    DataType.UINT2: torch.uint8,
    DataType.FLOAT4E2M1: torch.float8_e4m3fn,
    DataType.FLOAT6E2M3: torch.float8_e4m3fn,
    DataType.FLOAT6E3M2: torch.float8_e4m3fn,
}

NARROW = frozenset(
    {
        DataType.INT4,
        DataType.INT2,
        DataType.UINT4,
        DataType.UINT2,
        DataType.FLOAT4E2M1,
        DataType.FLOAT6E2M3,
        DataType.FLOAT6E3M2,
    }
)

ONNX_TYPES: dict[torch.dtype, DataType] = {
    dtype: code for code, dtype in TORCH_DTYPES.items() if code not in NARROW
}

FLOAT8 = frozenset(
    {
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
        torch.float8_e8m0fnu,
    }
)


def to_torch(array: Any, device: str | torch.device = "cpu") -> Any:
    """Array, scalar or tensor -> torch tensor, sharing memory where the type allows it.

    Strings stay a numpy array of objects; sequences become lists; None stays None.
    """
    if isinstance(array, torch.Tensor):
        return array if device == "cpu" and array.device.type == "cpu" else array.to(device)
    if array is None:
        return None
    if isinstance(array, list | tuple):
        return [to_torch(item, device) for item in array]
    array = np.asarray(array)
    if array.dtype.kind in "OUST":
        return array.astype(object)
    tensor = _share(array)
    return tensor if device == "cpu" else tensor.to(device)


def _share(array: np.ndarray) -> torch.Tensor:
    if not array.flags.c_contiguous and any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    code = DataType.from_numpy(array.dtype)
    if code in NARROW:
        if code.is_floating_point():
            return torch.from_numpy(array.astype(np.float32)).to(TORCH_DTYPES[code])
        return torch.from_numpy(array.astype(np.int8 if code.is_signed() else np.uint8))
    if code is DataType.BFLOAT16 or (code.bitwidth == 8 and code.is_floating_point()):
        raw = array.view(np.int16 if code is DataType.BFLOAT16 else np.uint8)
        return _view(raw).view(TORCH_DTYPES[code])
    return _view(array)


def _view(array: np.ndarray) -> torch.Tensor:
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():  # weights are read-only maps of a file; nothing writes to them
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(array)


def to_numpy(value: Any, code: DataType | None = None) -> Any:
    """Torch tensor -> numpy array; `code` restores an element type that torch lacks.

    Lists become lists of arrays; arrays of strings and None pass through.
    """
    if isinstance(value, list):
        return [to_numpy(item, code) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach().cpu()
    if code is None or code not in NARROW:
        code = ONNX_TYPES[tensor.dtype]
    if code in NARROW:
        wide = tensor.to(torch.float32) if code.is_floating_point() else tensor
        return wide.numpy().astype(code.numpy())
    if tensor.dtype is torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(code.numpy())
    if tensor.dtype in FLOAT8:
        return tensor.contiguous().view(torch.uint8).numpy().view(code.numpy())
    return tensor.numpy()


def result_type(op_type: str, types: tuple[DataType | None, ...], attrs: dict) -> DataType | None:
    """Element type of a node's first output, as far as torch's own dtype would not tell it.

    None where the torch dtype says all, so that only narrow types and strings need a rule.
    """
    if op_type in ("Cast", "BitCast"):
        return DataType(attrs["to"])
    if op_type == "CastLike":
        return types[1]
    if op_type == "QuantizeLinear":
        if attrs.get("output_dtype"):
            return DataType(attrs["output_dtype"])
        return types[2] if len(types) > 2 and types[2] is not None else None
    if op_type in ("Shape", "Size", "Equal", "DequantizeLinear", "StringSplit", "RegexFullMatch"):
        return None
    carried = [code for code in types if code in NARROW or code is DataType.STRING]
    return carried[0] if carried else None
