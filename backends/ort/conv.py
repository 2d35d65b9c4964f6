"""Conv on codes: QLinearConv, which reads and writes codes and takes Relu and Clip along."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, scalar

from .linear import check_weight, stored_weight
from .patterns import Codes, byte_values, encoded, float_scale, only_reader, zero_code
from .saturation import conv_rows, depthwise
from .sites import Refused, Site


def lower_conv(edit: Edit, node: Node, x: Codes, weight: Codes) -> Site:
    """Encode([Relu | Clip](Conv(decoded, decoded))) becomes QLinearConv; returns the site."""
    check_weight(weight, 0)
    if not x.static:
        raise Refused("integer convolution needs a scale known before, and its input's is dynamic")
    middle, out = written_codes(node)
    shape = tuple(array(weight.codes).shape)  # type: ignore[union-attr]
    free = depthwise(shape, int(attribute(node, "group", 1) or 1))
    weight = _with_room_for_bias(edit, node, x, weight)
    stored = stored_weight(edit, weight, conv_rows, free=free)
    bias = _bias(edit, node, x, array(stored.scale))  # type: ignore[arg-type]
    kept = {name: node.attributes[name].value for name in node.attributes}
    made = edit.node(
        "QLinearConv",
        [x.codes, float_scale(edit, x), zero_code(edit, x), stored.codes, stored.scale, stored.zero,
         float_scale(edit, out), zero_code(edit, out), *([bias] if bias is not None else [])],
        like=f"{out.codes.name}", after=middle or node, **kept,
    )  # fmt: skip
    result = _hold(edit, middle, out, made.outputs[0])
    encode = out.codes.producer()
    edit.replace(out.codes, result)
    edit.remove(encode, *([middle] if middle is not None else []), node)  # type: ignore[arg-type]
    return Site(node.name or "", "Conv", "QLinearConv", stored.codes.name or "")


def written_codes(node: Node) -> tuple[Node | None, Codes]:
    """The Relu or Clip between a Conv and its Encode (None: none is), and the codes written."""
    reader = only_reader(node.outputs[0])
    middle = None
    if reader is not None and not reader.domain and reader.op_type in ("Relu", "Clip"):
        middle, reader = reader, only_reader(reader.outputs[0])
    out = encoded(reader)
    if reader is None or out is None or reader.graph is not node.graph:
        raise Refused("integer convolution writes codes, and its output is read as float")
    if not byte_values(out) or not out.static:
        raise Refused(f"integer convolution writes u8 codes of one known scale, not {out.qtype}")
    if middle is not None and middle.op_type == "Clip" and None in _clip_limits(middle):
        raise Refused("the limits of its Clip are not constant")
    return middle, out


def _clip_limits(clip: Node) -> tuple[float | None, float | None]:
    """Lowest and highest value; infinite where not given, None where not constant."""
    limits = [-np.inf, np.inf]
    for index, value in enumerate(clip.inputs[1:3]):
        if value is not None:
            limits[index] = scalar(value)  # type: ignore[call-overload]
    return limits[0], limits[1]


def _hold(edit: Edit, middle: Node | None, out: Codes, codes: Value) -> Value:
    """Relu and Clip on codes; nothing at all where the codes end at their limits anyway."""
    if middle is None:
        return codes
    low, high = (0.0, np.inf) if middle.op_type == "Relu" else _clip_limits(middle)
    assert low is not None
    assert high is not None
    scale = _number(out.scale)
    zero = 0.0 if out.zero is None else _number(out.zero)
    least, most = (int(np.clip(np.rint(v / scale) + zero, 0, 255)) for v in (low, high))
    if (least, most) == (0, 255):
        return codes
    limits = [edit.constant(np.array(v, np.uint8), f"{codes.name}.limit") for v in (least, most)]
    made = edit.node("Clip", [codes, *limits], like=f"{codes.name}.held", after=codes.producer())
    return made.outputs[0]


def _with_room_for_bias(edit: Edit, node: Node, x: Codes, weight: Codes) -> Codes:
    """Wider scales, and codes to match, for channels whose bias would not fit 32 bits.

    Such channels are all but zero (folded batch norms of dead channels). At the scale where the
    bias takes 30 bits, rounding their K weights anew moves the output by K / 2^23 of it at most.
    """
    codes, scale, bias = array(weight.codes), array(weight.scale), _constant_bias(node)
    if bias is None:
        return weight
    assert codes is not None
    assert scale is not None
    flat = np.broadcast_to(scale.astype(np.float64).reshape(-1), (len(codes),))
    least = np.abs(bias.astype(np.float64)) / (_number(x.scale) * 2**30)
    if (flat >= least / 1.9).all():
        return weight
    wide = np.maximum(flat, least).astype(np.float32)
    each = (-1, *[1] * (codes.ndim - 1))
    moved = np.rint(codes.astype(np.float64) * (flat / wide).reshape(each)).astype(codes.dtype)
    name = weight.codes.name
    return replace(
        weight,
        codes=edit.constant(moved, f"{name}.wide"),
        scale=edit.constant(wide.reshape(each), f"{name}.scale.wide"),
    )


def _constant_bias(node: Node) -> np.ndarray | None:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    data = array(node.inputs[2])
    if data is None or data.ndim != 1:
        raise Refused("its bias is not constant")
    return data


def _bias(edit: Edit, node: Node, x: Codes, scale: np.ndarray) -> Value | None:
    """The bias i32 [N], in units of input scale x weight scale."""
    bias = _constant_bias(node)
    if bias is None:
        return None
    steps = np.rint(bias / (_number(x.scale) * scale.astype(np.float64)))
    return edit.constant(steps.astype(np.int32), f"{node.inputs[2].name}.i32")  # type: ignore[union-attr]


def _number(value: Value) -> float:
    data = array(value)
    assert data is not None
    return float(data.reshape(-1)[0])
