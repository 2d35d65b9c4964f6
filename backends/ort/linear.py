"""MatMul and Gemm on codes: MatMulIntegerToFloat, whose output is float and so loses nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, rank

from .patterns import Codes, float_scale, only_reader, zero_code
from .saturation import saturates, unsigned
from .sites import CONTRIB, Refused, Site

WEIGHTS = ("i8", "i4", "i2")
"""Elements of weights whose codes fit the kernels' i8 (narrower ones are widened when loading)."""


@dataclass(frozen=True)
class Weight:
    """A weight as a kernel wants it: codes, one scale per output channel (or one), zero point."""

    codes: Value
    scale: Value
    zero: Value


def stored_weight(
    edit: Edit, found: Codes, rows, *, turned: bool = False, free: bool = False
) -> Weight:
    """Bring a symmetric weight to i8 codes, or to u8 around 128 where i8 could saturate.

    rows(codes) -> [K, N], the order in which the kernel pairs them; turned: it wants the
    [K, N] of a stored [N, K]; free: it never saturates.
    """
    codes, scale = array(found.codes), array(found.scale)
    assert codes is not None
    assert scale is not None
    codes = np.ascontiguousarray(codes.T) if turned else codes
    name = found.codes.name or "weight"
    scale = edit.constant(_flat(scale), f"{name}.scale")
    if found.qtype.element == "i8" and not free and saturates(rows(codes)):
        value = edit.constant(unsigned(codes), f"{name}.u8")
        return Weight(value, scale, edit.constant(np.array(128, np.uint8), f"{name}.zero"))
    value = edit.constant(codes, f"{name}.kn") if turned else found.codes
    zero = edit.constant(np.zeros((), np.int8), f"{name}.zero")
    if found.qtype.element != "i8":  # folded when the session is made: small file, i8 kernel
        value = edit.node("Cast", [value], like=f"{name}.i8", to=3).outputs[0]
    return Weight(value, scale, zero)


def _flat(scale: np.ndarray) -> np.ndarray:
    scale = scale.astype(np.float32)
    return scale.reshape(()) if scale.size == 1 else scale.reshape(-1)


def check_weight(found: Codes, output: int) -> None:
    """Refuse weights that no integer kernel reads."""
    qtype = found.qtype
    if not found.constant:
        raise Refused("its weight's codes are not constant")
    if qtype.element not in WEIGHTS or qtype.zero is not None:
        raise Refused(f"integer kernels read symmetric {', '.join(WEIGHTS)} weights, not {qtype}")
    if not qtype.per_tensor and qtype.axis != output:
        raise Refused(f"integer kernels read one scale per output or per tensor, not {qtype}")


def lower_linear(edit: Edit, node: Node, x: Codes, weight: Codes) -> Site:
    """MatMul or Gemm of decoded codes becomes one MatMulIntegerToFloat; returns the site.

    A bias (Gemm's third input, or a constant Add behind a MatMul) goes along in float.
    """
    turned = node.op_type == "Gemm" and bool(attribute(node, "transB", 0))
    if (rank(weight.codes) or 0) != 2:
        raise Refused("its weight is not a matrix")
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0:
        raise Refused("Gemm with transA or alpha has no integer kernel")
    check_weight(weight, 0 if turned else 1)
    bias, last = _bias(edit, node, int(weight.codes.shape[0 if turned else 1]))  # type: ignore[index,arg-type]
    stored = stored_weight(edit, weight, lambda codes: codes, turned=turned)
    made = edit.node(
        "MatMulIntegerToFloat",
        [x.codes, stored.codes, float_scale(edit, x), stored.scale, zero_code(edit, x), stored.zero,
         *([bias] if bias is not None else [])],
        like=f"{last.name}.integer", domain=CONTRIB, before=node,
    )  # fmt: skip
    edit.replace(last, made.outputs[0])
    if last is not node.outputs[0]:
        edit.remove(last.producer())  # type: ignore[arg-type]
    edit.remove(node)
    return Site(node.name or "", node.op_type, "MatMulIntegerToFloat", stored.codes.name or "")


def _bias(edit: Edit, node: Node, size: int) -> tuple[Value | None, Value]:
    """The bias as float32 [N] (None: there is none) and the value that includes it."""
    result = node.outputs[0]
    if node.op_type == "Gemm":
        return bias_row(edit, node, size), result
    add = only_reader(result)
    if add is None or add.op_type != "Add" or add.domain or add.graph is not node.graph:
        return None, result
    other = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
    data = array(other)
    if data is None or data.dtype != np.float32 or data.shape != (size,):
        return None, result
    return other, add.outputs[0]


def bias_row(edit: Edit, node: Node, size: int) -> Value | None:
    """The third input of a Gemm as float32 [N], times beta; None where there is none."""
    given = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if given is None:
        return None
    data = array(given)
    if data is None or data.size not in (1, size) or (data.ndim > 1 and data.shape[-1] != size):
        raise Refused("its bias is not one constant per output")
    row = np.broadcast_to(data.reshape(-1), (size,)) * attribute(node, "beta", 1.0)
    return edit.constant(row.astype(np.float32), f"{given.name}.row")
