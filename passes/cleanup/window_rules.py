"""Output shapes of convolutions, pooling and padding: the batch and the channels go through, and
the spatial sizes where they can be told. An entry of None is a size that is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ir.graph import Node, attribute

from .symbols import Poly

if TYPE_CHECKING:
    from .dims import Dims

Size = int | Poly | None
Sizes = tuple[Size, ...]


def slid(size: Size, kernel: int, stride: int, dilation: int, pads: int) -> Size:
    """Places of a window along an axis; `pads`: zeros on both sides together."""
    reach = pads - dilation * (kernel - 1) - 1
    if isinstance(size, int):
        return (size + reach) // stride + 1
    return size + reach + 1 if stride == 1 and size is not None else None


def _padded(size: Size, node: Node, axis: int, count: int, window: tuple[int, int, int]) -> Size:
    kernel, stride, dilation = window
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        if stride == 1:
            return size
        return -(-size // stride) if isinstance(size, int) else None
    pads = [0] * (2 * count) if mode == "VALID" else attribute(node, "pads", [0] * (2 * count))
    return slid(size, kernel, stride, dilation, pads[axis] + pads[axis + count])


def _window(node: Node, sizes: Sizes, kernel: list[int]) -> Sizes:
    """The spatial sizes of a window that slides over `sizes`."""
    count = len(sizes)
    strides = attribute(node, "strides", [1] * count)
    dilations = attribute(node, "dilations", [1] * count)
    windows = zip(kernel, strides, dilations, strict=True)
    return tuple(
        _padded(size, node, axis, count, window)
        for axis, (size, window) in enumerate(zip(sizes, windows, strict=True))
    )


def _conv(node: Node, dims: Dims) -> Sizes | None:
    x, w = (dims.shape(value) for value in node.inputs[:2])
    if x is None or w is None or not all(isinstance(k, int) for k in w[2:]):
        return None
    return (x[0], w[0], *_window(node, x[2:], list(w[2:])))  # type: ignore[arg-type]


def _pool(node: Node, dims: Dims) -> Sizes | None:
    x = dims.shape(node.inputs[0])
    if x is None:
        return None
    if attribute(node, "ceil_mode", 0):  # the last window must begin inside: left to declarations
        return (*x[:2], *(None for _ in x[2:]))
    return (*x[:2], *_window(node, x[2:], list(attribute(node, "kernel_shape"))))


def _global(node: Node, dims: Dims) -> Sizes | None:
    x = dims.shape(node.inputs[0])
    return None if x is None else (*x[:2], *(1 for _ in x[2:]))


def _transposed(node: Node, dims: Dims) -> Sizes | None:
    x, w = (dims.shape(value) for value in node.inputs[:2])
    if x is None or w is None:
        return None
    channels = w[1] * attribute(node, "group", 1)
    return (x[0], channels, *(None for _ in x[2:]))


def _pad(node: Node, dims: Dims) -> Sizes | None:
    x, pads = dims.shape(node.inputs[0]), dims.numbers(node.inputs[1])
    axes = dims.numbers(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    if x is None or pads is None or (axes is None and len(node.inputs) > 3 and node.inputs[3]):
        return None
    places = range(len(x)) if axes is None else [int(a) % len(x) for a in axes]
    result: list[Size] = list(x)
    half = len(pads) // 2
    for i, axis in enumerate(places):
        result[axis] = x[axis] + pads[i] + pads[i + half]
    return tuple(result)


def _gemm(node: Node, dims: Dims) -> Sizes | None:
    a, b = (dims.shape(value) for value in node.inputs[:2])
    if a is None or b is None:
        return None
    return (
        a[1 if attribute(node, "transA", 0) else 0],
        b[0 if attribute(node, "transB", 0) else 1],
    )


def _resized(node: Node, dims: Dims) -> Sizes | None:
    """Batch and channels of an image, where only its sides are resized."""
    x = dims.shape(node.inputs[0])
    sizes = dims.numbers(node.inputs[3]) if len(node.inputs) > 3 else None
    if x is None or sizes is None or attribute(node, "axes") is not None:
        return None
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    return tuple(sizes)


WINDOWS: dict[str, Callable[[Node, Dims], Sizes | None]] = {
    "Conv": _conv, "ConvTranspose": _transposed, "Pad": _pad, "Gemm": _gemm, "Resize": _resized,
    "MaxPool": _pool, "AveragePool": _pool, "LpPool": _pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global),
}  # fmt: skip
