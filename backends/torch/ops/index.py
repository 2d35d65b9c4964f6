"""Reading and writing by index."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backends.torch.dtypes import to_numpy, to_torch
from backends.torch.table import op


def _positive(index: Tensor, size: int) -> Tensor:
    """Indices counted from the end made ordinary ones, in int64."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + size, index)


@op("Gather")
def gather(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    if index.numel() == 1 and index.dim() == 0:
        place = int(index)
        return x.select(axis, place)
    axis = axis % x.dim()
    flat = _positive(index, x.shape[axis]).reshape(-1)
    y = x.index_select(axis, flat)
    if index.dim() == 1:
        return y
    return y.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


@op("GatherElements")
def gather_elements(x: Tensor, index: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, _positive(index, x.shape[axis]))


@op("GatherND")
def gather_nd(x: Tensor, index: Tensor, *, batch_dims: int = 0) -> Tensor:
    depth = index.shape[-1]
    places = [_positive(part, x.shape[batch_dims + i]) for i, part in enumerate(index.unbind(-1))]
    lead = index.shape[:batch_dims]
    batch = [
        torch.arange(n, device=x.device).reshape(
            [-1 if j == i else 1 for j in range(index.dim() - 1)]
        )
        for i, n in enumerate(lead)
    ]
    assert len(places) == depth
    return x[tuple(batch + places)]


_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("ScatterElements", "Scatter")
def scatter_elements(
    x: Tensor, index: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    place = _positive(index, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, place, updates)
    return x.scatter_reduce(axis, place, updates, _REDUCE[reduction])


@op("ScatterND")
def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    depth = index.shape[-1]
    lead, rest = x.shape[:depth], x.shape[depth:]
    flat = x.reshape(-1, *rest) if depth else x.unsqueeze(0)
    row = torch.zeros(index.shape[:-1], dtype=torch.int64, device=x.device)
    for i, size in enumerate(lead):
        row = row * size + _positive(index[..., i], size)
    row, new = row.reshape(-1), updates.reshape(-1, *rest)
    if reduction == "none":
        y = flat.index_put((row,), new)
    elif reduction == "add":
        y = flat.index_add(0, row, new)
    else:
        y = flat.index_reduce(0, row, new, _REDUCE[reduction])
    return y.reshape(x.shape)


@op("OneHot")
def one_hot(index: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    size = int(depth)
    place = _positive(index, size)
    axis = axis + index.dim() + 1 if axis < 0 else axis
    shape = [1] * (index.dim() + 1)
    shape[axis] = size
    hit = place.unsqueeze(axis) == torch.arange(size, device=index.device).reshape(shape)
    return torch.where(hit, values[1], values[0])


@op("NonZero")
def non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x.reshape(1) if x.dim() == 0 else x).T.contiguous()


@op("Compress")
def compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    kept = torch.nonzero(condition).reshape(-1)
    return x.reshape(-1)[kept] if axis is None else x.index_select(axis, kept)


@op("Unique")
def unique(
    x: Tensor, *, axis: int | None = None, sorted: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    array = to_numpy(x)
    values, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not sorted:  # in order of first appearance
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    one, two, three = (torch.from_numpy(a.astype(np.int64)) for a in (first, inverse, counts))
    return to_torch(values), one, two, three


@op("ReverseSequence")
def reverse_sequence(
    x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    time = torch.arange(x.shape[time_axis], device=x.device)
    ends = lengths.unsqueeze(1)
    source = torch.where(time < ends, ends - 1 - time, time)  # [batch, time]
    if batch_axis > time_axis:
        source = source.T
    shape = [x.shape[d] if d in (batch_axis, time_axis) else 1 for d in range(x.dim())]
    return torch.gather(x, time_axis, source.reshape(shape).expand(x.shape))


@op("TensorScatter")
def tensor_scatter(
    past: Tensor,
    update: Tensor,
    start: Tensor | None = None,
    *,
    axis: int = -2,
    mode: str = "linear",
) -> Tensor:
    """Write `update` into a cache along `axis`, from `start[batch]` on."""
    size, count = past.shape[axis], update.shape[axis]
    first = torch.zeros(past.shape[0], dtype=torch.int64) if start is None else start
    place = first.reshape(-1, 1) + torch.arange(count)
    if mode == "circular":
        place = place % size
    shape = [1] * past.dim()
    shape[0], shape[axis] = place.shape
    return past.scatter(axis, place.reshape(shape).expand(update.shape), update)
