"""Arithmetic on the unsigned types torch stores but does not compute with: done by numpy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})


def or_numpy(fn: Callable[..., Any], twin: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, except that uint16/32/64 tensors go through the numpy function `twin`."""

    @functools.wraps(fn)
    def run(first: torch.Tensor, *rest: Any) -> torch.Tensor:
        if first.dtype in UNSIGNED:
            arrays = [t.numpy() if isinstance(t, torch.Tensor) else t for t in (first, *rest)]
            with np.errstate(all="ignore"):
                return torch.from_numpy(np.asarray(twin(*arrays)))
        return fn(first, *rest)

    return run


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """An unsigned tensor as int64 (uint64 keeps its bits), any other as it is."""
    return (
        tensor.view(torch.int64)
        if tensor.dtype is torch.uint64
        else (tensor.to(torch.int64) if tensor.dtype in UNSIGNED else tensor)
    )
