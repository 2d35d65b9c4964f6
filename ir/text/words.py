"""Spelling shared by printer and parser: names, numbers, element types, names of nodes."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx_ir

from ir.graph import QUANT_DOMAIN

INDENT = "  "
NAME = r"[\w./:+@$~*!-]*[\w./]"
"""A name that needs no quotes (after `%` or `@`)."""
WORD = r"[A-Za-z_][\w.@*+:/-]*"
"""A bare word: op, type, attribute, dimension."""
_NAME = re.compile(NAME)
_WORD = re.compile(WORD)
_PART = re.compile(r"[A-Za-z_]\w*")
_TAKEN = {"inf", "nan", "_", "const", "graph", "type", "ref", "bytes", "undefined"}

DTYPES = {
    {"b8": "bool", "s": "str"}.get(kind.short_name(), kind.short_name()): kind
    for kind in onnx_ir.DataType
}
DTYPE_NAMES = {kind: text for text, kind in DTYPES.items()}
KEPT = ("ptqc.", "quant.")
"""Metadata keys that belong to the graph; all others are commentary."""
LISTS = {
    "ints": onnx_ir.AttributeType.INTS,
    "floats": onnx_ir.AttributeType.FLOATS,
    "strings": onnx_ir.AttributeType.STRINGS,
    "tensors": onnx_ir.AttributeType.TENSORS,
    "graphs": onnx_ir.AttributeType.GRAPHS,
    "types": onnx_ir.AttributeType.TYPE_PROTOS,
}
"""How an empty list names its kind."""


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def name(sigil: str, text: str) -> str:
    """`%text` or `%"te xt"`."""
    return sigil + (text if _NAME.fullmatch(text) else quoted(text))


def word(text: str) -> str:
    """A bare word where possible."""
    return text if _WORD.fullmatch(text) and text not in _TAKEN else quoted(text)


def op(domain: str, op_type: str) -> str:
    """`Conv`, `com.microsoft.MatMulNBits`; quoted parts where dots would mislead."""
    right = op_type if _PART.fullmatch(op_type) and op_type not in _TAKEN else quoted(op_type)
    if not domain:
        return right
    plain = all(_PART.fullmatch(part) for part in domain.split("."))
    return f"{domain if plain and right == op_type else quoted(domain)}.{right}"


def number(value: float) -> str:
    """The shortest text of a float32 that reads back the same; never looks like an int."""
    with np.errstate(over="ignore"):
        text = str(np.float32(value))
    return text if "." in text or "e" in text or "n" in text else text + ".0"


def derived_name(domain: str, op_type: str, first_output: str | None) -> str:
    """The name of a node that shows none: from its first output, as exporters and `ir.ops` do."""
    if not first_output:
        return op_type
    if domain == QUANT_DOMAIN:
        stem, dot, tail = first_output.rpartition(".")
        if dot and tail in ("codes", "decoded", "scale"):
            return f"{stem}.{op_type}"
    return first_output.removesuffix("_output_0") or op_type
