"""What a format saves: bit operations, and bytes read from memory per inference.

Accounting of Edge-ASR, arXiv:2507.07877: BOPs = sum MACs * bits of one operand * bits of the
other, 16 for what is float; memory I/O = encoder weights once + decoder weights once per token +
the KV cache. It counts what a graph says, whatever a kernel makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ir import ops
from ir.errors import PassError
from ir.graph import Graph, Node, Value, constant, graphs

FLOAT_BITS = 16
_SAME = frozenset(
    ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice")
)
_SECOND = {"QLinearConv": 3, "QLinearMatMul": 3}
_FUSED = frozenset({"Attention", "LSTM", "GRU", "RNN"})
"""Ops whose products are all taken as float: no operand of theirs is their only one."""


def bits(value: Value | None) -> int:
    """Bits of a multiplicand: those of the codes behind it, 16 where it is float."""
    while value is not None:
        node = value.producer()
        if ops.is_op(node, "Decode"):
            return ops.qtype_of(node).bits  # type: ignore[arg-type]
        if node is not None and node.op_type == "DequantizeLinear":
            value = node.inputs[0]
        elif node is None or node.op_type not in _SAME:
            break
        else:
            value = node.inputs[0]
    dtype = value.dtype if value is not None else None
    return dtype.bitwidth if dtype is not None and dtype.is_integer() else FLOAT_BITS


def bit_operations(node: Node, macs: int) -> int:
    """BOPs of a node that does `macs` multiply-accumulates."""
    if not macs or node.op_type in _FUSED:
        return macs * FLOAT_BITS**2
    second = _SECOND.get(node.op_type, 1)
    return macs * bits(node.inputs[0]) * bits(node.inputs[second])


def stored_bytes(graph: Graph) -> int:
    """Bytes of all constants as stored: codes (4 bits are half a byte), scales, zero points."""
    values = [v for each in graphs(graph) for v in each.initializers.values()]
    return sum(t.nbytes for t in map(constant, values) if t is not None)


def memory_io(encoder_bytes: int, decoder_bytes: int, tokens: int, kv_bytes: int = 0) -> int:
    """Bytes read in one inference: encoder weights once, decoder weights for every token.

    kv_bytes: of the cache reads, see `cache_bytes`. A classifier has no decoder: 0 tokens.

    raises: PassError for a negative number.
    """
    if min(encoder_bytes, decoder_bytes, tokens, kv_bytes) < 0:
        raise PassError("bytes and tokens are counts, found a negative one")
    return encoder_bytes + decoder_bytes * tokens + kv_bytes


def cache_bytes(shapes: Mapping[str, tuple[int, ...]], bits_each: int, scale_bytes: int = 0) -> int:
    """Bytes of a KV cache of these shapes, at bits_each per entry, and its scales."""
    entries = sum(math.prod(shape) for shape in shapes.values())
    return -(-entries * bits_each // 8) + scale_bytes
