"""What a program computes from its initializers alone: loaded lazily, computed once, kept."""

from __future__ import annotations

from typing import Any

import torch

from backends.torch.plan import NOTHING, Step, failed
from backends.torch.program import Program, load
from ir.errors import PtqcError

FOLD_LIMIT = 2**28
"""Bytes of computed constants kept between runs; the rest is computed each time."""


class Constants:
    """Initializers as tensors, and the results of steps that read nothing else.

    limit: bytes of such results that are kept between runs.
    """

    def __init__(self, program: Program, limit: int, loaded: dict[int, Any] | None = None) -> None:
        self.program, self.limit = program, limit
        self.loaded: dict[int, Any] = {} if loaded is None else loaded
        self.folded: dict[int, Any] = {}

    def get(self, slot: int) -> Any:
        """The constant in `slot`: folded before, or an initializer."""
        if slot in self.folded:
            return self.folded[slot]
        if slot not in self.loaded:
            self.loaded[slot] = load(self.program.constants[slot], self.program.settings)
        return self.loaded[slot]

    def fold(
        self, indices: list[int], roots: set[int], given: frozenset[int]
    ) -> tuple[list[Step], dict[int, Any]]:
        """Run the steps that depend on constants only: (the steps left, constants they read).

        `given` are the slots filled from outside, which are no constants even if initializers.
        """
        values: dict[int, Any] = {NOTHING: None}
        left: list[Step] = []
        fixed = (set(self.program.constants) - given) | {NOTHING}
        room = self.limit - sum(own_bytes(value, []) for value in self.folded.values())
        for index in indices:
            step = self.program.steps[index]
            if step.random or hasattr(step.fn, "bodies") or not fixed.issuperset(step.ins):
                left.append(step)
                continue
            if not all(slot in self.folded for slot in step.outs if slot):
                args = [values[s] if s in values else self.get(s) for s in step.ins]
                if sum(a.nbytes for a in args if isinstance(a, torch.Tensor)) > room:
                    left.append(step)  # so would its result be, most likely
                    continue
                results = _call(step, args)
                cost = sum(own_bytes(result, args) for result in results)
                if cost > room:
                    left.append(step)
                    continue
                room -= cost
                values.update((s, r) for s, r in zip(step.outs, results, strict=False) if s)
            fixed.update(step.outs)
        read = {slot for step in left for slot in step.ins} | roots
        self.folded.update((slot, values[slot]) for slot in read if slot and slot in values)
        return left, {slot: self.get(slot) for slot in read if slot and slot in fixed}


def _call(step: Step, args: list[Any]) -> tuple[Any, ...]:
    try:
        with torch.no_grad():
            result = step.fn(*args)
    except (PtqcError, MemoryError):
        raise
    except Exception as error:
        raise failed(step.node, error) from error
    return result if isinstance(result, tuple) else (result,)


def own_bytes(value: Any, args: list[Any]) -> int:
    """Bytes that keeping `value` costs: none for a view of one of `args`."""
    if not isinstance(value, torch.Tensor):
        return 0
    place = value.untyped_storage().data_ptr()
    tensors = (arg for arg in args if isinstance(arg, torch.Tensor))
    shared = any(arg.untyped_storage().data_ptr() == place for arg in tensors)
    return 0 if shared else value.nbytes
