"""If, Loop and Scan: steps that run bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from backends.torch.dtypes import TORCH_DTYPES
from backends.torch.plan import execute, execute_watched, schedule
from ir.errors import BackendError

if TYPE_CHECKING:
    from backends.torch.plan import Plan
    from backends.torch.program import Program

Watch = Mapping[str, Callable] | None


class Body:
    """A body graph ready to run: `call(inputs, captured values, watch) -> outputs`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.captured = list(program.captured)
        slots: dict[int, list[str]] = {}
        for name, slot in program.names.items():
            if slot not in program.captured:
                slots.setdefault(slot, []).append(name)
        self.names = slots

    @cached_property
    def plan(self) -> Plan:
        program = self.program
        return schedule(program.steps, set(program.outputs), [None] * len(program.types))

    def __call__(self, inputs: list[Any], captured: list[Any], watch: Watch) -> list[Any]:
        slots = self.plan.template.copy()
        for slot, value in zip(self.program.inputs, inputs, strict=False):
            slots[slot] = value
        for slot, value in zip(self.captured, captured, strict=True):
            slots[slot] = value
        if watch is None:
            execute(self.plan, slots)
        else:
            names = {s: [n for n in ns if n in watch] for s, ns in self.names.items()}
            for slot in self.program.inputs:
                for name in names.get(slot, ()):
                    watch[name](slots[slot])
            execute_watched(self.plan, slots, names, watch)
        return [slots[slot] for slot in self.program.outputs]


class Control:
    """A step with bodies; the values they capture follow the node's own inputs."""

    def __init__(
        self, node: ir.Node, arity: int, bodies: dict[str, Program], attrs: dict[str, Any]
    ) -> None:
        self.node, self.arity, self.attrs = node, arity, attrs
        self.bodies = {name: Body(program) for name, program in bodies.items()}

    def names(self) -> Iterator[str]:
        """Names of all values inside the bodies, however deep."""
        for body in self.bodies.values():
            yield from (name for names in body.names.values() for name in names)
            yield from body.program.inner_names

    def __call__(self, *args: Any, watch: Watch = None) -> tuple[Any, ...]:
        return self.run(list(args[: self.arity]), list(args[self.arity :]), watch)

    def run(self, args: list[Any], captured: list[Any], watch: Watch) -> tuple[Any, ...]:
        raise NotImplementedError


class If(Control):
    def run(self, args: list[Any], captured: list[Any], watch: Watch) -> tuple[Any, ...]:
        start = 0
        chosen = "then_branch" if bool(args[0]) else "else_branch"
        for name, body in self.bodies.items():
            stop = start + len(body.captured)
            if name == chosen:
                return tuple(body([], captured[start:stop], watch))
            start = stop
        raise ValueError(f"If has no {chosen}")


class Loop(Control):
    def run(self, args: list[Any], captured: list[Any], watch: Watch) -> tuple[Any, ...]:
        (body,) = self.bodies.values()
        limit, cond, *state = args
        limit = int(limit) if limit is not None else None
        going, turn = cond is None or bool(cond), 0
        scanned: list[list[Any]] = [[] for _ in body.program.outputs[1 + len(state) :]]
        while going and (limit is None or turn < limit):
            keep, *rest = body([torch.tensor(turn), torch.tensor(True), *state], captured, watch)
            state, rows = rest[: len(state)], rest[len(state) :]
            for column, row in zip(scanned, rows, strict=True):
                column.append(row)
            going, turn = bool(keep), turn + 1
        outputs = self.node.outputs[len(state) :]
        return *state, *(stack(rows, value) for rows, value in zip(scanned, outputs, strict=False))


class Scan(Control):
    def run(self, args: list[Any], captured: list[Any], watch: Watch) -> tuple[Any, ...]:
        (body,) = self.bodies.values()
        count = self.attrs["num_scan_inputs"]
        if len(args) != len(body.program.inputs):
            raise BackendError(
                "Scan with sequence lengths (opset 8) is not supported",
                at=self.node,
                hint="convert the model to opset 9 or later",
            )
        state, sources = args[: len(args) - count], args[len(args) - count :]
        axes = self.attrs.get("scan_input_axes") or (0,) * count
        back = self.attrs.get("scan_input_directions") or (0,) * count
        length = sources[0].shape[axes[0]] if sources else 0
        scanned: list[list[Any]] = [[] for _ in body.program.outputs[len(state) :]]
        for turn in range(length):
            rows = [
                source.select(axis, length - 1 - turn if reverse else turn)
                for source, axis, reverse in zip(sources, axes, back, strict=True)
            ]
            results = body([*state, *rows], captured, watch)
            for column, row in zip(scanned, results[len(state) :], strict=True):
                column.append(row)
            state = results[: len(state)]
        return *state, *self.collect(scanned, len(state))

    def collect(self, scanned: list[list[Any]], states: int) -> Iterator[Any]:
        axes = self.attrs.get("scan_output_axes") or (0,) * len(scanned)
        back = self.attrs.get("scan_output_directions") or (0,) * len(scanned)
        outputs = self.node.outputs[states:]
        for rows, axis, reverse, value in zip(scanned, axes, back, outputs, strict=False):
            yield stack(rows[::-1] if reverse else rows, value, axis)


def stack(rows: list[Any], value: ir.Value, axis: int = 0) -> torch.Tensor:
    """Scan outputs side by side; of no turns, an empty tensor of the declared shape."""
    if rows:
        return torch.stack(rows, axis)
    known = [] if value.shape is None else list(value.shape)[1:]
    dims = [dim if isinstance(dim, int) else 0 for dim in known]
    dtype = TORCH_DTYPES[value.dtype] if value.dtype else torch.float32
    return torch.empty([0, *dims], dtype=dtype)


CONTROL: dict[str, type[Control]] = {"If": If, "Loop": Loop, "Scan": Scan}
