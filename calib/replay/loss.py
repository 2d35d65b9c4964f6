"""Losses of a region's output against its target, over rows that hold data."""

from __future__ import annotations

import torch


def mean_square(
    output: torch.Tensor, target: torch.Tensor, rows: torch.Tensor | None
) -> torch.Tensor:
    """Mean squared error; rows of padding do not count, neither do elements that the target masks
    with -inf (or that the float model left undefined)."""
    if rows is not None and output.shape[: rows.ndim] == rows.shape:
        output, target = output[rows], target[rows]
    valid = torch.isfinite(target)
    if bool(valid.all()):
        return torch.mean(torch.square(output - target))
    return torch.mean(torch.square(output[valid] - target[valid]))
