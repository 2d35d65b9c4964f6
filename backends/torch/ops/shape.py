"""Moving elements without computing: shapes, joins, cuts, pads."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.ops.unsigned import UNSIGNED, widened
from backends.torch.table import Site, op


@op("Shape")
def shape_of(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(list(x.shape[slice(start, end)]), dtype=torch.int64)


@op("Size")
def size_of(x: Tensor) -> Tensor:
    return torch.tensor(math.prod(x.shape), dtype=torch.int64)


@op("Reshape")
def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    dims = shape.tolist()
    if 0 in dims and not allowzero:
        dims = [x.shape[i] if dim == 0 else dim for i, dim in enumerate(dims)]
    return x.reshape(dims)


@op("Transpose")
def transpose(x: Tensor, *, perm: tuple[int, ...] | None = None) -> Tensor:
    return x.permute(perm if perm is not None else tuple(reversed(range(x.dim()))))


@op("Flatten")
def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    axis = axis + x.dim() if axis < 0 else axis
    rows = math.prod(x.shape[:axis])
    return x.reshape(rows, math.prod(x.shape[axis:]))


@op("Squeeze")
def squeeze(
    x: Tensor, axes_in: Tensor | None = None, *, axes: tuple[int, ...] | None = None
) -> Tensor:
    if axes_in is not None:
        axes = tuple(axes_in.reshape(-1).tolist())
    if axes is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"cannot squeeze axes {list(axes)} of shape {list(x.shape)}")
    return x.squeeze(axes)


@op("Unsqueeze")
def unsqueeze(x: Tensor, axes_in: Tensor | None = None, *, axes: tuple[int, ...] = ()) -> Tensor:
    if axes_in is not None:
        axes = tuple(axes_in.reshape(-1).tolist())
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@op("Expand")
def expand(x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape.tolist()))


@op("Concat")
def concat(*inputs: Tensor, axis: int) -> Tensor:
    return torch.cat(inputs, axis)


@op("Split")
def split(
    x: Tensor,
    sizes: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    split: tuple[int, ...] | None = None,
    site: Site,
) -> tuple[Tensor, ...]:
    if sizes is not None:
        return torch.split(x, sizes.tolist(), axis)
    if split:
        return torch.split(x, list(split), axis)
    count = num_outputs or len(site.node.outputs)
    each = -(-x.shape[axis] // count)
    rest = x.shape[axis] - each * (count - 1)
    return torch.split(x, [each] * (count - 1) + [rest], axis)


@op("Slice")
def slice_(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    firsts, stops = starts.tolist(), ends.tolist()
    dims = range(len(firsts)) if axes is None else axes.tolist()
    strides = [1] * len(firsts) if steps is None else steps.tolist()
    for dim, first, stop, step in zip(dims, firsts, stops, strides, strict=True):
        size = x.shape[dim]
        if step < 0:  # torch has no negative steps: take the same elements from the front, flip
            picked = range(size)[first:stop:step]
            if not picked:
                x = x.narrow(dim, 0, 0)
                continue
            x = _stepped(x, dim, picked[-1], picked[0] + 1, -step).flip(dim)
        else:
            first, stop, _ = slice(first, stop, step).indices(size)
            x = _stepped(x, dim, first, max(first, stop), step)
    return x


def _stepped(x: Tensor, dim: int, first: int, stop: int, step: int) -> Tensor:
    if step == 1:
        return x.narrow(dim, first, stop - first)
    index = [slice(None)] * x.dim()
    index[dim] = slice(first, stop, step)
    return x[tuple(index)]


@op("Tile")
def tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(repeats.tolist())


@op("Pad")
def pad(
    x: Tensor,
    pads_in: Tensor | None = None,
    value_in: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
    pads: tuple[int, ...] | None = None,
    value: float = 0.0,
) -> Tensor:
    amounts = list(pads or ()) if pads_in is None else pads_in.tolist()
    dims = list(range(x.dim())) if axes is None else [a % x.dim() for a in axes.tolist()]
    half = len(amounts) // 2
    by_dim = {d: (amounts[i], amounts[half + i]) for i, d in enumerate(dims)}
    if mode == "constant":
        flat = [n for d in reversed(range(x.dim())) for n in by_dim.get(d, (0, 0))]
        fill = value if value_in is None else value_in.item()
        if x.dtype in UNSIGNED or x.dtype is torch.bool:
            wide = widened(x) if x.dtype in UNSIGNED else x.to(torch.uint8)
            return F.pad(wide, flat, value=int(fill)).to(x.dtype)
        return F.pad(x, flat, value=fill)
    for dim, (before, after) in by_dim.items():
        if before or after:
            x = _pad_by_index(x, dim, before, after, mode)
    return x


def _pad_by_index(x: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    size = x.shape[dim]
    places = np.arange(-before, size + after)
    if mode == "edge":
        places = places.clip(0, size - 1)
    elif mode == "wrap":
        places = places % size
    elif mode == "reflect":
        period = max(2 * (size - 1), 1)
        places = (size - 1) - np.abs((places % period) - (size - 1))
    else:
        raise ValueError(f"Pad mode {mode!r} is not one of constant, edge, reflect, wrap")
    return x.index_select(dim, torch.from_numpy(places).to(x.device))


@op("DepthToSpace")
def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    parts = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * blocksize, w * blocksize)


@op("SpaceToDepth")
def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    if mode == "CRD":
        return F.pixel_unshuffle(x, blocksize)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, h // blocksize, w // blocksize)


@op("Trilu")
def trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    offset = 0 if k is None else int(k)
    return torch.triu(x, offset) if upper else torch.tril(x, offset)


@op("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0, site: Site) -> Tensor:
    rows, columns = x.shape
    kind = x.dtype if dtype is None else site.dtype(dtype)
    places = torch.arange(columns) - torch.arange(rows).unsqueeze(1)
    return (places == k).to(kind).to(x.device)


@op("ConstantOfShape")
def constant_of_shape(shape: Tensor, *, value: object = None, site: Site) -> Tensor:
    if value is None:
        return torch.zeros(shape.tolist(), dtype=site.float32, device=site.device)
    fill = _tensor(value, site)
    return fill.reshape(()).expand(shape.tolist())


@op("Range")
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start + i * delta for i < ceil((limit - start) / delta)."""
    first, stop, step = start.item(), limit.item(), delta.item()
    count = max(math.ceil((stop - first) / step), 0)
    return (torch.arange(count, device=start.device) * step + first).to(start.dtype)


@op("CenterCropPad")
def center_crop_pad(x: Tensor, shape: Tensor, *, axes: tuple[int, ...] | None = None) -> Tensor:
    dims = range(x.dim()) if axes is None else axes
    for dim, size in zip(dims, shape.tolist(), strict=True):
        gap = size - x.shape[dim]
        if gap < 0:
            x = x.narrow(dim, -gap // 2, size)
        elif gap > 0:
            tail = [0, 0] * (x.dim() - 1 - dim % x.dim())
            x = F.pad(x, [*tail, gap // 2, gap - gap // 2])
    return x


def _tensor(value: object, site: Site) -> Tensor:
    from backends.torch.dtypes import to_torch

    tensor = to_torch(value.numpy(), site.device)  # type: ignore[attr-defined]
    return tensor.to(site.float32) if tensor.dtype is torch.float32 else tensor


@op("Constant")
def constant(
    *,
    value: object = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: tuple[int, ...] | None = None,
    site: Site,
) -> Tensor:
    if value is not None:
        return _tensor(value, site)
    floats = value_float if value_float is not None else value_floats
    if floats is not None:
        return torch.tensor(floats, dtype=site.float32, device=site.device)
    ints = value_int if value_int is not None else value_ints
    return torch.tensor(ints, dtype=torch.int64, device=site.device)
