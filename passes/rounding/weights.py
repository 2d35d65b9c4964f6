"""One encoded weight between the graph's layout and the rows [N, K] that `core.solve` works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ir import ops
from ir.formats import integer
from ir.graph import Node, Value, array
from ir.qtype import QType
from passes.sites import Linear

from .core import IntegerGrid, PairGrid, act_order, factor, solve
from .hessians import window
from .limits import PAIRS, REACH, from_kernel_rows, kernel_rows
from .rtn import LIMIT, round_pairs, round_weight


@dataclass(frozen=True)
class Task:
    """An encoded weight, the Decodes of its codes and the (first) layer that reads it."""

    encode: Node
    decodes: tuple[Node, ...]
    site: Linear

    @property
    def encode_input(self) -> Value | None:
        return self.encode.inputs[0]

    @property
    def key(self) -> str:
        return self.encode.outputs[0].name or ""

    @cached_property
    def qtype(self) -> QType:
        return ops.qtype_of(self.encode)

    @property
    def window(self) -> tuple:
        return window(self.site)

    @property
    def paired(self) -> bool:
        """Whether its kernel forbids pairs of large codes (narrower ones cannot saturate)."""
        ruled = self.encode.metadata_props.get(LIMIT) == PAIRS
        return ruled and self.qtype.element == "i8" and self.qtype.zero is None


@dataclass(frozen=True, eq=False)
class Rounded:
    """codes in the weight's layout, their scale as it is stored; error, nearest: tr(D H D') of
    these codes and of the nearest ones; damp and whether it was raised; dead channels."""

    codes: np.ndarray
    scale: np.ndarray
    error: float
    nearest: float
    damp: float
    raised: bool
    dead: int

    def state(self) -> dict[str, Any]:
        """What `Saved` can hold."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        wide = np.int8 if self.codes.dtype.itemsize == 1 and self.codes.min() < 0 else np.uint8
        codes = self.codes if self.codes.dtype.itemsize > 1 else self.codes.astype(wide)
        return {
            **held, "codes": torch.from_numpy(np.ascontiguousarray(codes)),
            "kind": str(self.codes.dtype), "scale": torch.from_numpy(self.scale.astype(np.float64)),
            "scale_kind": str(self.scale.dtype),
        }  # fmt: skip

    @staticmethod
    def restored(state: dict[str, Any]) -> Rounded:
        held = {k: v for k, v in state.items() if k not in ("kind", "scale_kind")}
        held["codes"] = state["codes"].numpy().astype(np.dtype(state["kind"]))
        held["scale"] = state["scale"].numpy().astype(np.dtype(state["scale_kind"]))
        return Rounded(**held)


def solve_task(task: Task, grams: Sequence[np.ndarray], damp: float, order: bool) -> Rounded:
    """Codes of a weight against X^T X of its inputs (one a group of a Conv).

    raises: SolveError as `core.solve`
    """
    site, qtype = task.site, task.qtype
    weight = _floats(array(task.encode.inputs[0]))
    scale, zero = _scales(task)
    if task.paired:
        plain, scale = round_pairs(weight, scale, site)
    else:
        plain = round_weight(weight, scale, zero, qtype)
    rows = kernel_rows(weight, site.inputs, site.output)
    full = [_rows(part, weight, task) for part in (scale, zero)]
    nearest = kernel_rows(integer.decode(plain, scale, zero, qtype), site.inputs, site.output)
    codes = np.empty(rows.shape, np.int32)
    share = len(rows) // len(grams)
    error, least, used, dead = 0.0, 0.0, damp, 0
    for number, gram in enumerate(grams):
        part = slice(number * share, (number + 1) * share)
        mine = [None if f is None else f[:, part] for f in full]
        turn = act_order(gram) if order else None
        back = np.arange(len(gram))[::-1] if turn is None else turn[::-1]
        found = solve(
            rows[part], factor(gram[np.ix_(back, back)], damp), _grid(mine, task), order=turn
        )
        codes[part] = found.codes
        error, used, dead = error + found.error, max(used, found.damp), dead + found.dead
        least += _error(nearest[part] - rows[part], gram)
    laid = from_kernel_rows(codes, weight.shape, site.inputs, site.output)
    kind = integer.dtype(qtype.element)
    if least < error:  # the damped walk lost to plain rounding: it keeps the better codes
        laid, error = plain, least
    return Rounded(laid.astype(kind), scale, error, least, used, used > damp, dead)


def decoded(task: Task, found: Rounded) -> np.ndarray:
    """The weight that the layer will compute with."""
    zero = _scales(task)[1]
    return integer.decode(found.codes, found.scale, zero, task.qtype)


def _floats(tensor: np.ndarray | None) -> np.ndarray:
    assert tensor is not None
    return tensor.astype(np.float32, copy=False)


def _scales(task: Task) -> tuple[np.ndarray, np.ndarray | None]:
    inputs = task.encode.inputs
    scale = array(inputs[1])
    assert scale is not None
    return scale, array(inputs[2]) if len(inputs) > 2 else None


def _rows(part: np.ndarray | None, weight: np.ndarray, task: Task) -> np.ndarray | None:
    """Scales or zeros of every weight, [K, N] in the kernel's order."""
    if part is None:
        return None
    wide = integer.expand(part.astype(np.float32), weight.shape, task.qtype)
    every = np.broadcast_to(wide, weight.shape)
    return kernel_rows(every, task.site.inputs, task.site.output).T


def _grid(parts: list[np.ndarray | None], task: Task) -> IntegerGrid:
    scale, zero = parts
    assert scale is not None
    low, high = task.qtype.limits
    if task.paired:
        return PairGrid(scale, high, REACH)
    if zero is None and task.qtype.signed:
        low = -high  # the most negative code stays unused, as in `round_weight`
    return IntegerGrid(scale, zero, low, high, dtype=np.int32)


def _error(delta: np.ndarray, gram: np.ndarray) -> float:
    """tr(D H D') in float32 products."""
    delta = np.ascontiguousarray(delta, np.float32)
    return float(np.vdot(delta @ gram.astype(np.float32), delta))
