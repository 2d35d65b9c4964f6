"""Losses of an output against its target, over rows that hold data."""

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


def relative_square(
    output: torch.Tensor, target: torch.Tensor, rows: torch.Tensor | None
) -> torch.Tensor:
    """`mean_square` over that of zeros in the output's place: 1 where nothing is left of it."""
    size = mean_square(torch.zeros_like(target), target, rows)
    return mean_square(output, target, rows) / size.clamp(min=1e-30)


def top_divergence(
    output: torch.Tensor, target: torch.Tensor, rows: torch.Tensor | None, top: int
) -> torch.Tensor:
    """KL(target || output) in nats a row of logits, of the target's `top` likeliest ids and of all
    others as one; never above the divergence over all ids.

    The paper leaves the others out. The sum is then below zero where they lose probability to
    these: it is least not where the two agree.
    Source: OSTQuant (KL-Top), arXiv:2501.13987.
    """
    if rows is not None and output.shape[: rows.ndim] == rows.shape:
        output, target = output[rows], target[rows]
    wanted, found = torch.log_softmax(target, -1), torch.log_softmax(output, -1)
    if top >= target.shape[-1]:
        return (wanted.exp() * (wanted - found)).sum(-1).mean()
    wanted, ids = wanted.topk(top)
    wanted, found = _with_rest(wanted), _with_rest(found.gather(-1, ids))
    return (wanted.exp() * (wanted - found)).sum(-1).mean()


def _with_rest(logs: torch.Tensor) -> torch.Tensor:
    """Log probabilities, and that of everything else behind them."""
    rest = (1 - logs.exp().sum(-1, keepdim=True)).clamp(min=1e-7)
    return torch.cat([logs, rest.log()], -1)
