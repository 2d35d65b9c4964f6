"""Constants in the text: digests, ranges, small values; and the tensors they stand for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator

import numpy as np
import onnx_ir

from ir.graph import Graph, graphs

from . import words

Tensor = onnx_ir.TensorProtocol
SMALL = 16
"""Constants of up to so many numbers show them all."""
HUGE = 1 << 28
"""`seed`, `zeros` and `ones` make no more numbers: a wrong text must not fill the memory."""
_DIGEST, _RANGE = "ptqc.digest", "ptqc.range"


def digest(tensor: Tensor) -> str:
    """12 hex digits over type, shape and numbers; computed once per tensor object."""
    known = tensor.meta.get(_DIGEST) if hasattr(tensor, "meta") else None
    if known is None:
        known = hashlib.sha256(f"{tensor.dtype.name}{tuple(tensor.shape)}".encode())
        if tensor.dtype == onnx_ir.DataType.STRING:
            for text in tensor.numpy().reshape(-1):
                raw = _bytes(text)
                known.update(len(raw).to_bytes(8, "little") + raw)
        else:
            known.update(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)
        known = known.hexdigest()[:12]
        if hasattr(tensor, "meta"):
            tensor.meta[_DIGEST] = known
    return known


def store(graph: Graph) -> dict[str, Tensor]:
    """{digest: tensor} of every constant: what `parse` needs to read `show(graph)` back."""
    return {digest(tensor): tensor for tensor in _tensors(graph)}


def _tensors(model: Graph) -> Iterator[Tensor]:
    kinds = onnx_ir.AttributeType
    for function in model.functions.values():
        yield from _attribute_tensors(function.attributes.values())
    for graph in graphs(model):
        yield from (v.const_value for v in graph.initializers.values() if v.const_value is not None)
        for node in graph:
            if node.attributes:
                yield from _attribute_tensors(
                    a for a in node.attributes.values() if a.type in (kinds.TENSOR, kinds.TENSORS)
                )


def _attribute_tensors(attributes) -> Iterator[Tensor]:
    for attribute in attributes:
        if attribute.value is None:
            continue
        if attribute.type == onnx_ir.AttributeType.TENSOR:
            yield attribute.value
        elif attribute.type == onnx_ir.AttributeType.TENSORS:
            yield from attribute.value


def literal(tensor: Tensor | None, full: bool, bits: int | None = None) -> str:
    """The text after `const`; `bits`: of the codes held, whose use shows as `used:15/16`."""
    if tensor is None:
        return "missing"
    if full or tensor.size <= SMALL:
        shown = _values(tensor)
        if shown is not None:
            return shown
    return f"sha:{digest(tensor)}{_range(tensor, bits)}"


def _values(tensor: Tensor) -> str | None:
    """All the numbers; None when they would not read back (payloads of NaN)."""
    flat = _flat(tensor.numpy())
    if tensor.dtype == onnx_ir.DataType.STRING:
        items = [json.dumps(_bytes(text).decode("utf-8", "surrogateescape")) for text in flat]
    elif flat.dtype == bool:
        items = ["true" if value else "false" for value in flat]
    elif flat.dtype.kind in "iu" or tensor.dtype.is_integer():
        items = [str(int(value)) for value in flat]
    else:
        items = [_number(value) for value in flat]
        again = np.array([float(item) for item in items]).astype(flat.dtype)
        if again.tobytes() != flat.tobytes():
            return None
    return items[0] if tensor.shape == () and len(items) == 1 else f"[{', '.join(items)}]"


def _number(value) -> str:
    if value.dtype == np.float64:
        return repr(float(value))
    if value.dtype == np.float16:
        return str(value)
    return words.number(float(value))  # every narrower float is a float32


def _flat(array: np.ndarray) -> np.ndarray:
    """One axis; complex numbers as pairs of real and imaginary part."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.real(flat).dtype) if flat.dtype.kind == "c" else flat


def _bytes(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape")


def _range(tensor: Tensor, bits: int | None) -> str:
    key = f"{_RANGE}.{bits}"
    known = tensor.meta.get(key) if hasattr(tensor, "meta") else None
    if known is None:
        known = _measure(tensor.numpy(), bits)
        if hasattr(tensor, "meta"):
            tensor.meta[key] = known
    return known


def _measure(array: np.ndarray, bits: int | None) -> str:
    if array.size == 0 or array.dtype == object or array.dtype == bool:
        return ""
    if bits is not None and bits <= 8:
        return f" used:{len(np.unique(array.astype(np.int32)))}/{1 << bits}"
    with np.errstate(invalid="ignore"):
        if array.dtype.kind in "iu":
            return f" max:{max(abs(int(array.min())), abs(int(array.max())))}"
        top = float(np.max(np.abs(array)))
    return f" max:{top:.4g}"


def from_numbers(
    flat: list, dtype: onnx_ir.DataType, shape: tuple[int, ...], name: str | None
) -> Tensor:
    """A tensor of listed values. Raises ValueError saying what does not fit."""
    pairs = 2 if dtype in (onnx_ir.DataType.COMPLEX64, onnx_ir.DataType.COMPLEX128) else 1
    if len(flat) != math.prod(shape) * pairs:
        raise ValueError(f"{math.prod(shape) * pairs} values, found {len(flat)}")
    wanted = {onnx_ir.DataType.STRING: str, onnx_ir.DataType.BOOL: bool}.get(dtype)
    for value in flat:
        right = type(value) is wanted if wanted else type(value) not in (str, bool)
        if not right:
            raise ValueError(f"values of type {words.DTYPE_NAMES[dtype]}, found {value!r}")
    if dtype == onnx_ir.DataType.STRING:
        texts = np.array([value.encode("utf-8", "surrogateescape") for value in flat], dtype=object)
        return onnx_ir.StringTensor(texts.reshape(shape), name=name, shape=onnx_ir.Shape(shape))
    return onnx_ir.Tensor(_array(flat, dtype).reshape(shape), dtype=dtype, name=name)


def _array(flat: list, dtype: onnx_ir.DataType) -> np.ndarray:
    if dtype.is_integer():
        low, high = int(dtype.min), int(dtype.max)
        for value in flat:
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"integers from {low} to {high}, found {value!r}")
        return np.array(flat, dtype=np.uint64 if low == 0 else np.int64).astype(dtype.numpy())
    if dtype == onnx_ir.DataType.BOOL:
        return np.array(flat, dtype=bool)
    with np.errstate(over="ignore"):
        if dtype == onnx_ir.DataType.COMPLEX64:
            return np.array(flat, dtype=np.float32).view(np.complex64)
        if dtype == onnx_ir.DataType.COMPLEX128:
            return np.array(flat, dtype=np.float64).view(np.complex128)
        return np.array(flat, dtype=np.float64).astype(dtype.numpy())


def made(
    kind: str, dtype: onnx_ir.DataType, shape: tuple[int, ...], seed: int, name: str | None
) -> Tensor:
    """`seed:N` (normal numbers), `zeros` or `ones`. Raises ValueError as `from_numbers`."""
    if math.prod(shape) > HUGE:
        raise ValueError(f"at most {HUGE} values, found {math.prod(shape)}")
    if dtype in (onnx_ir.DataType.STRING, onnx_ir.DataType.UNDEFINED):
        raise ValueError(f"a numeric type for '{kind}', found {words.DTYPE_NAMES[dtype]}")
    if kind == "seed":
        if not dtype.is_floating_point():
            raise ValueError(f"a float type for 'seed', found {words.DTYPE_NAMES[dtype]}")
        numbers = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    else:
        numbers = np.full(shape, 0.0 if kind == "zeros" else 1.0, np.float32)
    return onnx_ir.Tensor(numbers.astype(dtype.numpy()), dtype=dtype, name=name)
