"""The rules of codes: what an Encode, Decode or Scale must look like, and who may read codes."""

from __future__ import annotations

import onnx_ir

from . import ops
from .errors import PipelineError, VerifyError
from .graph import Node, Value, constant
from .qtype import QType
from .signature import fits

LAYOUT: dict[str, int | None] = {
    **dict.fromkeys(
        ("Reshape", "Transpose", "Slice", "Gather", "Split", "Squeeze", "Unsqueeze", "Flatten",
         "Identity", "MaxPool"),
        1,
    ),
    "Concat": None,
}  # fmt: skip
"""Ops that only move (or pick) codes, and how many of their first inputs they move (None: all).

Only one scale for the whole tensor survives them, and their results are codes of the same QType.
"""


def check(node: Node) -> None:
    """Raise VerifyError unless an op of ours has the inputs, types and shapes its QType says."""
    try:
        qtype = QType.parse(node.overload)
        element = ops.onnx_type(qtype.element)
        parts = [ops.part_type(kind) for kind in (qtype.scales[0], qtype.zero) if kind]
    except PipelineError as error:
        raise VerifyError(error.cause, at=node, hint=error.hint) from None
    sizes = (1, len(parts)) if node.op_type == "Scale" else (1 + len(parts), 1)
    if (len(node.inputs), len(node.outputs)) != sizes or None in node.inputs:
        raise VerifyError(
            f"{node.op_type} at {qtype} has {sizes[0]} inputs and {sizes[1]} outputs, "
            f"found {len(node.inputs)} and {len(node.outputs)}",
            at=node,
            hint="make it with ir.ops.make; a zero point is given exactly when the QType has one",
        )
    first = node.inputs[0]
    assert first is not None
    if node.op_type == "Decode":
        _check_type(node, first, element, "codes")
        _check_type(node, node.outputs[0], onnx_ir.DataType.FLOAT, "result")
    else:
        if first.dtype is not None and not first.dtype.is_floating_point():
            raise VerifyError(
                f"{node.op_type} reads %{first.name} of type {first.dtype}, expected floats",
                at=node, hint="codes are read by Decode only",
            )  # fmt: skip
        if node.op_type == "Encode":
            _check_type(node, node.outputs[0], element, "codes")
    around = node.outputs if node.op_type == "Scale" else node.inputs[1:]
    for value, kind in zip(around, parts, strict=True):
        _check_part(node, qtype, value, kind, first)


def _check_type(node: Node, value: Value, wanted: onnx_ir.DataType, what: str) -> None:
    if value.dtype is not None and value.dtype != wanted:
        raise VerifyError(
            f"{what} %{value.name} of type {value.dtype}, expected {wanted} for {node.overload}",
            at=node, hint="change the QType or the value's type",
        )  # fmt: skip


def _check_part(
    node: Node, qtype: QType, value: Value | None, kind: onnx_ir.DataType, tensor: Value
) -> None:
    """A scale or zero point: its type, and its shape where the tensor's is known."""
    assert value is not None
    _check_type(node, value, kind, "scale or zero point")
    if value.shape is None:
        return
    wanted = [] if qtype.per_tensor else None
    if wanted is None and tensor.shape is not None:
        if len(tensor.shape) != len(qtype.block):
            raise VerifyError(
                f"%{tensor.name} has {len(tensor.shape)} axes, "
                f"the QType {qtype} has {len(qtype.block)}",
                at=node, hint="give the block a number per axis, or a lone 0 for the whole tensor",
            )  # fmt: skip
        wanted = [
            1 if block == 0 else -(-dim // block) if isinstance(dim, int) else None
            for dim, block in zip(tensor.shape, qtype.block, strict=True)
        ]
    if wanted is not None and not fits(value.shape, wanted):
        shown = "[" + ",".join("?" if dim is None else str(dim) for dim in wanted) + "]"
        raise VerifyError(
            f"scale or zero point %{value.name} has shape {value.shape}, "
            f"expected {shown} for {qtype}",
            at=node, hint="scales keep the rank: see QType.scale_shape",
        )  # fmt: skip


class Codes:
    """Which values hold codes, as the walk goes on."""

    def __init__(self) -> None:
        self._held: dict[Value, QType] = {}

    def read(self, node: Node) -> None:
        """Check what the node does with codes, and note which codes it writes."""
        if ops.is_op(node, "Decode"):
            self._decoded(node)
        elif self._held:
            self._other(node)
        if ops.is_op(node, "Encode"):
            self._held[node.outputs[0]] = QType.parse(node.overload)

    def _decoded(self, node: Node) -> None:
        qtype, codes = QType.parse(node.overload), node.inputs[0]
        assert codes is not None
        for value in node.inputs[1:]:
            if value in self._held:
                raise _misread(node, value)
        held = self._held.get(codes)
        if held is None:
            self._begin(node, codes, qtype)
        elif held != qtype:
            raise VerifyError(
                f"codes %{codes.name} are {held}, decoded as {qtype}", at=node,
                hint="decode them with the QType they were made with",
            )  # fmt: skip

    def _begin(self, node: Node, codes: Value, qtype: QType) -> None:
        """Codes nobody encoded in sight: constants, inputs, or these moved about."""
        producer = codes.producer()
        if producer is not None and (
            producer.domain or producer.op_type not in {*LAYOUT, "Constant"}
        ):
            raise VerifyError(
                f"%{codes.name} is computed by {producer.op_type}, expected codes", at=node,
                hint="codes come from Encode, a constant or an input",
            )  # fmt: skip
        self._held[codes] = qtype
        if constant(codes) is not None:
            for use in codes.uses():
                if not (ops.is_op(use.node, "Decode") and use.idx == 0):
                    self._moved(use.node, use.idx, codes)

    def _other(self, node: Node) -> None:
        for index, value in enumerate(node.inputs):
            if value in self._held:
                self._moved(node, index, value)
                qtype = self._held[value]  # type: ignore[index]
                moved = node.outputs[:1] if node.op_type == "MaxPool" else node.outputs
                for output in moved:
                    if self._held.setdefault(output, qtype) != qtype:
                        raise VerifyError(
                            f"codes of {self._held[output]} and {qtype} mixed", at=node,
                            hint="give them one QType and one scale, or decode them before",
                        )  # fmt: skip

    def _moved(self, node: Node, index: int, value: Value | None) -> None:
        most = LAYOUT.get(node.op_type, 0) if not node.domain else 0
        if most is not None and index >= most:
            raise _misread(node, value)
        if not self._held[value].per_tensor:  # type: ignore[index]
            raise VerifyError(
                f"{node.op_type} moves codes %{value.name} of {self._held[value]}, "  # type: ignore[union-attr,index]
                "whose scales would stay behind", at=node,
                hint="decode first, or use one scale for the tensor (@0)",
            )  # fmt: skip


def _misread(node: Node, value: Value | None) -> VerifyError:
    return VerifyError(
        f"input %{value.name if value else '?'} holds codes, "
        "which only Decode and ops that move them read",
        at=node,
        hint=f"put a Decode before it; ops that move codes: {', '.join(LAYOUT)}",
    )
