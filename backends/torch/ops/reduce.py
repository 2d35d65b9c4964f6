"""Many elements to one: reductions, arg-reductions, cumulative sums, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from backends.torch.ops.unsigned import UNSIGNED
from backends.torch.table import Site, op


def _reducer(fn: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    """Axes from the input (opset 18) or the attribute (before); none means all, or nothing."""

    def run(
        x: Tensor,
        axes_in: Tensor | None = None,
        *,
        axes: tuple[int, ...] | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        dims = list(axes or ()) if axes_in is None else axes_in.tolist()
        if not dims:
            if noop_with_empty_axes:
                dims = []
                return fn(x.unsqueeze(-1), [-1], False)
            dims = list(range(x.dim()))
        if not dims:
            return fn(x.unsqueeze(-1), [-1], False)
        return fn(x, dims, bool(keepdims))

    return run


def _narrowed(x: Tensor, y: Tensor) -> Tensor:
    return y if y.dtype is x.dtype else y.to(x.dtype)


def _mean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(dims, keep)
    return x.to(torch.float64).mean(dims, keep).to(x.dtype)


def _prod(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((d % x.dim() for d in dims), reverse=True):
        x = _narrowed(x, x.prod(dim, keep))
    return x


def _log_sum_exp(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.logsumexp(x, dims, keep)
    return torch.logsumexp(x.to(torch.float64), dims, keep).to(x.dtype)


def _log_sum(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return _narrowed(x, x.sum(dims, keep).log())


def _norm2(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.linalg.vector_norm(x, 2, dims, keep)
    return x.to(torch.float64).square().sum(dims, keep).sqrt().to(x.dtype)


def _extreme(name: str) -> Callable[[Tensor, list[int], bool], Tensor]:
    reduce, twin = getattr(torch, name), getattr(np, name)

    def run(x: Tensor, dims: list[int], keep: bool) -> Tensor:
        if x.dtype in UNSIGNED:
            return torch.from_numpy(np.asarray(twin(x.numpy(), tuple(dims), keepdims=keep)))
        if x.numel() or all(x.shape[d] for d in dims):
            return reduce(x, dims, keep)
        return _empty(x, dims, keep, name)

    return run


def _empty(x: Tensor, dims: list[int], keep: bool, name: str) -> Tensor:
    """The extreme of nothing: the type's lowest value for amax, its highest for amin."""
    if x.dtype is torch.bool:
        bound: float = name == "amin"
    elif x.is_floating_point():
        bound = float("-inf") if name == "amax" else float("inf")
    else:
        info = torch.iinfo(x.dtype)
        bound = info.min if name == "amax" else info.max
    shape = x.sum(dims, keep).shape
    return torch.full(shape, bound, dtype=x.dtype, device=x.device)


REDUCERS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceSum": lambda x, dims, keep: _narrowed(x, x.sum(dims, keep)),
    "ReduceMean": _mean,
    "ReduceProd": _prod,
    "ReduceMax": _extreme("amax"),
    "ReduceMin": _extreme("amin"),
    "ReduceL1": lambda x, dims, keep: _narrowed(x, x.abs().sum(dims, keep)),
    "ReduceL2": _norm2,
    "ReduceSumSquare": lambda x, dims, keep: _narrowed(x, x.square().sum(dims, keep)),
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}
for _name, _fn in REDUCERS.items():
    op(_name)(_reducer(_fn))


def _arg(x: Tensor, axis: int, keepdims: int, last: int, name: str) -> Tensor:
    twin = getattr(np, name)  # numpy promises the first of equals, torch does not
    array = x.detach().to(torch.float32 if x.dtype is torch.bfloat16 else x.dtype).cpu().numpy()
    found = twin(np.flip(array, axis) if last else array, axis)
    found = array.shape[axis] - 1 - found if last else found
    found = np.expand_dims(found, axis) if keepdims else np.asarray(found)
    return torch.from_numpy(found.astype(np.int64)).to(x.device)


@op("ArgMax")
def arg_max(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _arg(x, axis, keepdims, select_last_index, "argmax")


@op("ArgMin")
def arg_min(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _arg(x, axis, keepdims, select_last_index, "argmin")


def _cumulative(x: Tensor, axis: Tensor, exclusive: int, reverse: int, name: str) -> Tensor:
    dim = int(axis)
    if reverse:
        x = x.flip(dim)
    if exclusive:
        first = torch.full_like(x.narrow(dim, 0, 1), 0 if name == "cumsum" else 1)
        x = torch.cat([first, x.narrow(dim, 0, x.shape[dim] - 1)], dim)
    y = getattr(torch, name)(x, dim, dtype=x.dtype)
    return y.flip(dim) if reverse else y


@op("CumSum")
def cum_sum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulative(x, axis, exclusive, reverse, "cumsum")


@op("CumProd")
def cum_prod(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    return _cumulative(x, axis, exclusive, reverse, "cumprod")


def _along(fn: Callable[[Tensor, int], Tensor], x: Tensor, axis: int | None, site: Site) -> Tensor:
    """fn along `axis`; before opset 13 along all axes from `axis` (then 1 if absent) on, as one."""
    if site.opset >= 13:
        return fn(x, -1 if axis is None else axis)
    rows = math.prod(x.shape[: 1 if axis is None else axis])
    return fn(x.reshape(rows, -1), 1).reshape(x.shape)


@op("Softmax")
def softmax(x: Tensor, *, axis: int | None = None, site: Site) -> Tensor:
    return _along(torch.softmax, x, axis, site)


@op("LogSoftmax")
def log_softmax(x: Tensor, *, axis: int | None = None, site: Site) -> Tensor:
    return _along(torch.log_softmax, x, axis, site)


@op("Hardmax")
def hardmax(x: Tensor, *, axis: int | None = None, site: Site) -> Tensor:
    return _along(_one_hot_of_largest, x, axis, site)


def _one_hot_of_largest(x: Tensor, axis: int) -> Tensor:
    return torch.zeros_like(x).scatter(axis, _arg(x, axis, 1, 0, "argmax"), 1)


@op("TopK")
def top_k(
    x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """Always sorted and stable: of equals, the lower index comes first."""
    count = int(k)
    wide = x.to(torch.int64) if x.dtype in UNSIGNED else x
    order = torch.sort(wide, dim=axis, descending=bool(largest), stable=True).indices
    order = order.narrow(axis, 0, count)
    return torch.gather(wide, axis, order).to(x.dtype), order
