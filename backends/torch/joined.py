"""A product and the bias behind it as one step, as torch's own linear layers compute them.

Rounded once less than a product and a sum: the graph of a torch module is then that module to the
bit, and MatMul with its Add costs no second pass over the result. A product that is asked for, or
watched, is computed by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from backends.torch.plan import Step

FLOATS = (torch.float32, torch.float64)


def joined(steps: Sequence[Step], kept: Collection[int]) -> list[Step]:
    """The steps, every MatMul that only an Add reads joined to it; `kept` slots are left alone."""
    reads = Counter(slot for step in steps for slot in step.ins)
    products = {
        step.outs[0]: step
        for step in steps
        if _is(step, "MatMul") and reads[step.outs[0]] == 1 and step.outs[0] not in kept
    }
    taken: dict[int, Step] = {}
    found = []
    for step in steps:
        place = next((i for i, s in enumerate(step.ins) if s in products), None)
        if place is not None and _is(step, "Add"):
            product = products[step.ins[place]]
            taken[product.outs[0]] = product
            step = Step(
                _linear(product.fn, step.fn, place),
                (*product.ins, step.ins[1 - place]), step.outs, product.node,
            )  # fmt: skip
        found.append(step)
    return [step for step in found if not (step.outs and step.outs[0] in taken)]


def _is(step: Step, op: str) -> bool:
    return step.node.op_type == op and not step.node.domain and len(step.ins) == 2


def _linear(product: Callable[..., Any], add: Callable[..., Any], place: int) -> Callable[..., Any]:
    """x @ w + b; where b is no bias of the matrix w, the two ops as they are."""

    def run(x: Any, w: Any, b: Any) -> Any:
        if _is_bias(x, w, b):
            return F.linear(x, w.T, b)
        y = product(x, w)
        return add(y, b) if place == 0 else add(b, y)

    return run


def _is_bias(x: Any, w: Any, b: Any) -> bool:
    if not all(isinstance(t, Tensor) for t in (x, w, b)):
        return False
    return (
        w.dim() == 2 and b.dim() == 1 and b.shape[0] == w.shape[1] and x.dim() > 1
        and x.dtype == w.dtype == b.dtype and x.dtype in FLOATS
    )  # fmt: skip
