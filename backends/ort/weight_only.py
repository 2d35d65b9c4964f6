"""Stored codes that float kernels read: packed for MatMulNBits, or decoded when loading."""

from __future__ import annotations

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, rank

from .patterns import Codes
from .sites import CONTRIB, Refused, Site

PACKED_BITS = (2, 4)
"""Widths where MatMulNBits beats float (of 8 bits it does not: those are decoded when loading)."""
LEAST_BLOCK, WHOLE_BLOCK = 16, 128
"""Smallest block of the kernel, and the block that a column with one scale is cut into."""
ACCURACY = 4
"""The kernel's name for multiplying in 8 bits; its error (0.6 %) is far below 4-bit weights'."""


def lower_packed(edit: Edit, node: Node, weight: Codes) -> Site:
    """MatMul or Gemm of a float and a blocked weight of 2 or 4 bits becomes MatMulNBits."""
    turned = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
    if (rank(weight.codes) or 0) != 2 or not weight.constant:
        raise Refused("its weight is not a constant matrix")
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0
        or attribute(node, "beta", 1.0) != 1.0
    ):  # fmt: skip
        raise Refused("Gemm with transA, alpha or beta has no MatMulNBits")
    block = block_size(weight, 1 if turned else 0)
    codes, scale = array(weight.codes), array(weight.scale)
    zero = None if weight.zero is None else array(weight.zero)
    assert codes is not None
    assert scale is not None
    if turned:
        codes, scale, zero = codes.T, scale.T, None if zero is None else zero.T
    inputs, size = codes.shape
    low = weight.qtype.limits[0]
    packed = pack(codes.astype(np.int16) - low, weight.qtype.bits, block)
    name = weight.codes.name
    scales = _rows(scale, inputs, size, block).astype(np.float32).reshape(-1)
    parts: list[Value | None] = [
        edit.constant(packed, f"{name}.packed"), edit.constant(scales, f"{name}.scale"), None,
    ]  # fmt: skip
    if zero is not None:
        rows = _rows(zero.astype(np.int16), inputs, size, block)
        parts[2] = edit.constant(pack_zeros(rows, weight.qtype.bits), f"{name}.zero")
    bias = _bias(edit, node, size)
    result = node.outputs[0]
    made = edit.node(
        "MatMulNBits", [node.inputs[0], *_trimmed([*parts, None, bias])],
        like=f"{result.name}.packed", domain=CONTRIB, before=node,
        K=inputs, N=size, bits=weight.qtype.bits, block_size=block, accuracy_level=ACCURACY,
    )  # fmt: skip
    edit.replace(result, made.outputs[0])
    edit.remove(node)
    return Site(node.name or "", node.op_type, "MatMulNBits", made.inputs[1].name or "")  # type: ignore[union-attr]


def block_size(weight: Codes, axis: int) -> int:
    """Inputs per scale, as the kernel counts them; raises Refused for blocks that it has not."""
    qtype = weight.qtype
    if not qtype.integer or qtype.bits not in PACKED_BITS:
        raise Refused(f"MatMulNBits holds {' or '.join(map(str, PACKED_BITS))} bits, not {qtype}")
    if qtype.zero is not None and qtype.signed:
        raise Refused(f"MatMulNBits has zero points for unsigned codes only, not {qtype}")
    if qtype.zero is None and not qtype.signed:
        raise Refused(f"MatMulNBits wants zero points for unsigned codes, not {qtype}")
    if qtype.per_tensor or qtype.axis == 1 - axis:
        return WHOLE_BLOCK
    block = qtype.block[axis]
    if qtype.blocked_axis != axis or block < LEAST_BLOCK or block & (block - 1) or block > 256:
        raise Refused(f"MatMulNBits needs blocks of 16 to 256 inputs, a power of two, not {qtype}")
    return block


def pack(codes: np.ndarray, bits: int, block: int) -> np.ndarray:
    """Codes [K, N] from 0 up -> u8 [N, ceil(K / block), block * bits / 8], low bits first."""
    inputs, size = codes.shape
    blocks = -(-inputs // block)
    padded = np.zeros((size, blocks * block), np.uint8)
    padded[:, :inputs] = codes.T
    return _squeeze(padded.reshape(size, blocks, block), bits)


def pack_zeros(zeros: np.ndarray, bits: int) -> np.ndarray:
    """Zero points [N, blocks] -> u8, each row padded to whole bytes."""
    per_byte = 8 // bits
    size, blocks = zeros.shape
    padded = np.zeros((size, -(-blocks // per_byte) * per_byte), np.uint8)
    padded[:, :blocks] = zeros
    return _squeeze(padded, bits)


def _squeeze(codes: np.ndarray, bits: int) -> np.ndarray:
    per_byte = 8 // bits
    parts = codes.reshape(*codes.shape[:-1], -1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.bitwise_or.reduce(parts << shifts, axis=-1).astype(np.uint8)


def _rows(part: np.ndarray, inputs: int, size: int, block: int) -> np.ndarray:
    """Scales or zeros of a [K, N] weight -> [N, blocks]."""
    blocks = -(-inputs // block)
    if part.ndim == 2 and part.shape[0] == blocks:
        return np.broadcast_to(part, (blocks, size)).T
    return np.broadcast_to(part.reshape(-1, 1), (size, blocks))


def _bias(edit: Edit, node: Node, size: int) -> Value | None:
    if node.op_type != "Gemm" or len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    data = array(node.inputs[2])
    if data is None or data.size not in (1, size) or (data.ndim > 1 and data.shape[-1] != size):
        raise Refused("its bias is not one constant per output")
    row = np.broadcast_to(data.reshape(-1), (size,)).astype(np.float32)
    return edit.constant(row, f"{node.inputs[2].name}.row")


def _trimmed(parts: list[Value | None]) -> list[Value | None]:
    while parts and parts[-1] is None:
        parts.pop()
    return parts


def decode_when_loading(edit: Edit, decode: Node, found: Codes) -> None:
    """Spell a Decode of constants as Cast, Sub, Mul, which ONNX Runtime folds at the start.

    A DequantizeLinear it would run again at every inference, or join to kernels that misread the
    scales of blocks (MatMulIntegerToFloat was seen to).
    """
    name = decode.outputs[0].name
    value = edit.node("Cast", [found.codes], like=f"{name}.steps", before=decode, to=1).outputs[0]
    for op, part, like in (("Sub", found.zero, "centred"), ("Mul", found.scale, "float")):
        data = None if part is None else array(part)
        if data is not None:
            factor = edit.constant(data.astype(np.float32), f"{name}.{op.lower()}")
            whole = _repeated(edit, decode, found, factor)
            value = edit.node(op, [value, whole], like=f"{name}.{like}", before=decode).outputs[0]
    edit.replace(decode.outputs[0], value)
    edit.remove(decode)


def _repeated(edit: Edit, decode: Node, found: Codes, part: Value) -> Value:
    """Scales or zeros with one row for every index of the axes that are cut into blocks."""
    for axis, size in enumerate(found.qtype.block):
        if size > 1:
            index = np.arange(int(found.codes.shape[axis])) // size  # type: ignore[index,arg-type]
            rows = edit.constant(index.astype(np.int64), f"{part.name}.rows")
            like = f"{part.name}.whole"
            part = edit.node("Gather", [part, rows], like=like, before=decode, axis=axis).outputs[0]
    return part
