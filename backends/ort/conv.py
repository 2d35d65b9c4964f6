"""Conv on codes: QLinearConv, which reads and writes codes and takes Relu and Clip along."""

from __future__ import annotations

import numpy as np

from ir.edit import Edit
from ir.graph import Node, Value, array, attribute, rank, scalar

from .linear import check_weight, stored_weight
from .patterns import Codes, byte_values, encoded, float_scale, only_reader, zero_code
from .saturation import conv_rows, depthwise
from .sites import Refused, Site

_LARGEST = 2**31 - 1


def lower_conv(edit: Edit, node: Node, x: Codes, weight: Codes) -> Site:
    """Encode([Relu | Clip](Conv(decoded, decoded))) becomes QLinearConv; returns the site."""
    check_weight(weight, 0)
    if not x.static:
        raise Refused("integer convolution needs a scale known before, and its input's is dynamic")
    middle, out = written_codes(node)
    shape = tuple(array(weight.codes).shape)  # type: ignore[union-attr]
    free = depthwise(shape, int(attribute(node, "group", 1) or 1))
    scale = _with_room_for_bias(node, x, weight)
    stored = stored_weight(edit, weight, conv_rows, free=free)
    if scale is not None:
        stored.scale.const_value = edit.constant(scale, f"{stored.scale.name}.wide").const_value
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
    scale = float(array(out.scale))  # type: ignore[arg-type]
    zero = 0 if out.zero is None else int(array(out.zero))  # type: ignore[arg-type]
    least, most = (int(np.clip(np.rint(v / scale) + zero, 0, 255)) for v in (low, high))
    if (least, most) == (0, 255):
        return codes
    limits = [edit.constant(np.array(v, np.uint8), f"{codes.name}.limit") for v in (least, most)]
    made = edit.node("Clip", [codes, *limits], like=f"{codes.name}.held", after=codes.producer())
    return made.outputs[0]


def _bias_steps(node: Node, x: Codes, scale: np.ndarray, channels: int) -> np.ndarray | None:
    """The bias in units of (input scale x weight scale), float64 [N], or None without a bias."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return None
    data = array(node.inputs[2])
    if data is None or data.shape != (channels,):
        raise Refused("its bias is not constant")
    with np.errstate(divide="ignore"):
        return data.astype(np.float64) / (float(array(x.scale)) * scale.astype(np.float64))  # type: ignore[arg-type]


def _with_room_for_bias(node: Node, x: Codes, weight: Codes) -> np.ndarray | None:
    """Wider scales for channels whose weights are all zero and whose bias would not fit 32 bits.

    The scale of a channel of zeros is free. None when every bias fits; Refused when one cannot.
    """
    codes, scale = array(weight.codes), array(weight.scale)
    assert codes is not None
    assert scale is not None
    flat = np.broadcast_to(scale.astype(np.float32).reshape(-1), (codes.shape[0],))
    steps = _bias_steps(node, x, flat, codes.shape[0])
    if steps is None or (np.abs(steps) <= _LARGEST).all():
        return None
    high = np.abs(steps) > _LARGEST
    if scale.size == 1 or (codes.reshape(len(codes), -1)[high] != 0).any():
        raise Refused("its bias does not fit 32 bits at this scale")
    wide = flat.copy()
    bias = np.abs(array(node.inputs[2]))  # type: ignore[arg-type]
    wide[high] = bias[high] / (float(array(x.scale)) * 2**30)  # type: ignore[arg-type]
    return wide


def _bias(edit: Edit, node: Node, x: Codes, scale: np.ndarray) -> Value | None:
    weight = node.inputs[1]
    channels = int(weight.shape[0]) if weight is not None and rank(weight) else scale.size  # type: ignore[index,arg-type]
    steps = _bias_steps(node, x, scale, channels)
    if steps is None:
        return None
    name = node.inputs[2].name  # type: ignore[union-attr]
    return edit.constant(np.rint(steps).astype(np.int32), f"{name}.i32")
