"""Bodies of Encode, Decode and Scale in standard ops, for elements that are tables."""

from __future__ import annotations

import numpy as np
import onnx_ir

from .elements import Element
from .errors import PipelineError
from .formats import integer
from .qtype import QType

_EMPTY = "Constant<value = float[1] {0.0}>()"


def body(op: str, qtype: QType, table: Element, stored: int) -> str:
    """The function's text; its tables are put in by `fill`. `stored`: ONNX type of the codes."""
    if op == "Scale":
        return f"Scale (x) => (scale) {{ {_scale(qtype, table)} }}"
    source, result = ("x", "codes") if op == "Encode" else ("codes", "x")
    lines = ["real = Cast<to = 1>(scale)"]
    if op == "Decode":
        lines += ["index = Cast<to = 7>(codes)", *_spread("index", qtype), f"levels = {_EMPTY}"]
        lines += ["steps = Gather(levels, index)", "x = Mul(steps, whole)"]
    else:
        lines += [
            *_spread("x", qtype),
            "ratio = Div(x, whole)",
            f"thresholds = {_EMPTY}",
            f"order = {_EMPTY}",
        ]
        lines += [*_search(table), "found = Gather(order, place)"]
        lines += [f"codes = Cast<to = {stored}>(found)"]
    return f"{op} ({source}, scale) => ({result}) {{ {chr(10).join(lines)} }}"


def _spread(source: str, qtype: QType) -> list[str]:
    """`real` repeated along the axes that are cut into blocks, as `whole`."""
    lines, part = [], "real"
    for axis, size in enumerate(qtype.block):
        if size > 1:
            lines += [
                f"dim{axis} = Shape<start = {axis}, end = {axis + 1}>({source})",
                f"count{axis} = Squeeze(dim{axis})",
                f"first{axis} = Constant<value = int64 {{0}}>()",
                f"one{axis} = Constant<value = int64 {{1}}>()",
                f"size{axis} = Constant<value = int64 {{{size}}}>()",
                f"all{axis} = Range(first{axis}, count{axis}, one{axis})",
                f"rows{axis} = Div(all{axis}, size{axis})",
                f"part{axis} = Gather<axis = {axis}>({part}, rows{axis})",
            ]
            part = f"part{axis}"
    return [*lines, f"whole = Identity({part})"]


def _search(table: Element) -> list[str]:
    """`place`: how many thresholds lie below `ratio`, by halving."""
    lines: list[str] = []
    depth = len(table.thresholds).bit_length()
    lines.append("origin = Constant<value = int64 {0}>()")
    place = "origin"
    for level in range(depth - 1, -1, -1):
        step = 1 << level
        lines += [
            f"step{level} = Constant<value = int64 {{{step}}}>()",
            f"before{level} = Constant<value = int64 {{{step - 1}}}>()",
            f"at{level} = Add({place}, before{level})",
            f"edge{level} = Gather(thresholds, at{level})",
            f"above{level} = Greater(ratio, edge{level})",
            f"next{level} = Add({place}, step{level})",
            f"place{level} = Where(above{level}, next{level}, {place})",
        ]
        place = f"place{level}"
    return [*lines, f"place = Identity({place})"]


def _scale(qtype: QType, table: Element) -> str:
    """The scale of a tensor's own range, over whole axes."""
    if any(size > 1 for size in qtype.block) or qtype.scales != ("f32",):
        raise PipelineError(
            f"Scale has no body for {qtype}", hint="use whole axes or single indices, and f32"
        )
    axes = [i for i, size in enumerate(qtype.block) if size == 0]
    lines = [f"floor = Constant<value = float {{{integer.SCALE_FLOOR}}}>()", "size = Abs(x)"]
    lines.append(f"reach = Constant<value = float {{{table.top!r}}}>()")
    if qtype.per_tensor:
        lines.append("top = ReduceMax<keepdims = 0>(size)")
    else:
        listed = ", ".join(map(str, axes))
        lines.append(f"axes = Constant<value = int64[{len(axes)}] {{{listed}}}>()")
        lines.append("top = ReduceMax<keepdims = 1>(size, axes)")
    return "\n".join([*lines, "raw = Div(top, reach)", "scale = Max(raw, floor)"])


def fill(graph: onnx_ir.Graph | onnx_ir.Function, table: Element | None) -> None:
    """Put the tables into a parsed body (as tensors: a text cannot say NaN)."""
    assert table is not None
    size = (1 << len(table.thresholds).bit_length()) - 1
    thresholds = np.full(size, np.inf, np.float32)
    thresholds[: len(table.thresholds)] = table.thresholds
    found = {
        "levels": table.values, "thresholds": thresholds, "order": table.order.astype(np.int32)
    }  # fmt: skip
    for node in graph:
        name = node.outputs[0].name
        if node.op_type == "Constant" and name in found:
            tensor = onnx_ir.tensor(found[name])
            node.attributes["value"] = onnx_ir.AttrTensor("value", tensor)
