"""Executor: a graph compiled once, run many times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

import backends.torch.ops  # noqa: F401  (fills the table)
from backends.torch.constants import FOLD_LIMIT, Constants
from backends.torch.dtypes import TORCH_DTYPES, to_torch
from backends.torch.joined import joined
from backends.torch.plan import Plan, execute, execute_watched, schedule
from backends.torch.program import Program, Settings
from ir.errors import BackendError, DataError

Watch = Mapping[str, Callable[[torch.Tensor], object]]


class Executor:
    """Runs any graph (`onnx_ir.Model`) with numpy or torch feeds.

    `threads`: torch threads during a run (None: as set); `device`: where it runs; `dtype`: the
    torch dtype that takes the place of float32 throughout (weights, feeds, casts); `keep_bytes`:
    how much of what follows from constants alone is kept between runs (0 suits a single run).
    `inputs` and `outputs` are the names it takes and gives.

    Raises BackendError for a node with no meaning here, DataError for feeds that do not fit.
    """

    def __init__(
        self,
        graph: ir.Model,
        *,
        threads: int | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        keep_bytes: int = FOLD_LIMIT,
    ) -> None:
        settings = Settings(graph.functions, dtype or torch.float32, device)
        self.program = Program(settings)
        self.program.add_graph(graph.graph, graph.graph.opset_imports.get("", 25))
        self.graph, self.threads = graph, threads
        initializers = graph.graph.initializers
        self.inputs = tuple(v.name or "" for v in graph.graph.inputs if v.name not in initializers)
        self.outputs = tuple(value.name or "" for value in graph.graph.outputs)
        self._cut: frozenset[int] = frozenset()
        self._keep_bytes = keep_bytes
        self._reset()

    def _reset(self, loaded: dict[int, Any] | None = None) -> None:
        program = self.program
        self._makers = {slot: i for i, step in enumerate(program.steps) for slot in step.outs}
        self._declared = {v.name: v.dtype for v in self.graph.graph.inputs if v.dtype is not None}
        self._constants = Constants(self.program, self._keep_bytes, loaded)
        self._plans: dict[tuple, Plan] = {}

    def run(
        self,
        feeds: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        watch: Watch | None = None,
        params: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """Compute `outputs` (default: the graph's): `{name: torch.Tensor}`.

        `watch` hands each named value (inputs, constants, values in bodies too) to a function as
        soon as it is there; `params` replaces initializers. Autograd is on only where a feed or a
        param requires a gradient. Sequences are lists; strings are numpy arrays of objects.
        """
        wanted = self.outputs if outputs is None else tuple(outputs)
        tensors = self._tensors(feeds, params or {})
        plan = self._plan(wanted, watch or {}, tensors.keys())
        slots = plan.template.copy()
        for slot, tensor in tensors.items():
            slots[slot] = tensor
        grad = torch.is_grad_enabled() and any(
            t.requires_grad for t in tensors.values() if isinstance(t, torch.Tensor)
        )
        with using_threads(self.threads), torch.set_grad_enabled(grad):
            if watch:
                execute_watched(plan, slots, self._announce(watch, slots), watch)
            else:
                execute(plan, slots)
        names = self.program.names
        return {name: slots[names[name]] for name in wanted}

    def region(self, inputs: Sequence[str], outputs: Sequence[str]) -> Executor:
        """An executor of only the nodes between the cut `inputs` and the values `outputs`.

        Raises BackendError, naming the value, when something else leads from the graph's inputs
        past the cut to the outputs.
        """
        part = object.__new__(Executor)
        part.program, part.graph, part.threads = self.program, self.graph, self.threads
        part.inputs, part.outputs = tuple(inputs), tuple(outputs)
        part._keep_bytes = self._keep_bytes
        part._cut = frozenset(self._slot(name) for name in inputs)
        part._reset(self._constants.loaded)
        leak = part._leak()
        if leak is not None:
            raise BackendError(
                "the cut does not separate: another value leads into the region",
                at=f"%{leak}",
                hint=f"add {leak!r} to the region's inputs",
            )
        return part

    def _slot(self, name: str) -> int:
        if name not in self.program.names:
            raise BackendError(
                f"the graph has no value named {name!r}",
                hint="names are those of inputs, initializers and node outputs",
            )
        return self.program.names[name]

    def _tensors(
        self, feeds: Mapping[str, Any], params: Mapping[str, torch.Tensor]
    ) -> dict[int, Any]:
        """Slot -> tensor for everything given from outside, checked against the declarations."""
        settings, tensors = self.program.settings, {}
        for name, given in (*feeds.items(), *params.items()):
            slot = self._slot(name)
            if slot not in self.program.constants and name not in self.inputs:
                raise DataError(
                    f"{name!r} is not an input here", hint=f"inputs are {', '.join(self.inputs)}"
                )
            tensor = to_torch(given, settings.device)
            code = self._declared.get(name)
            if isinstance(tensor, torch.Tensor):
                expected = TORCH_DTYPES.get(code, tensor.dtype) if code else tensor.dtype
                if name in params or tensor.dtype not in (expected, settings.float32):
                    _check_param(name, tensor, expected, name in params)
                if tensor.dtype is torch.float32:
                    tensor = tensor.to(settings.float32)
            tensors[slot] = tensor
        return tensors

    def _needed(self, roots: Iterable[int], given: Iterable[int]) -> tuple[set[int], set[int]]:
        """(indices of the steps that compute `roots`, source slots they start from)."""
        stop, steps, sources = set(given), set(), set()
        stack, seen = list(roots), set()
        while stack:
            slot = stack.pop()
            if slot in seen:
                continue
            seen.add(slot)
            maker = None if slot in stop else self._makers.get(slot)
            if maker is None:
                sources.add(slot)
            elif maker not in steps:
                steps.add(maker)
                stack.extend(self.program.steps[maker].ins)
        sources.discard(0)
        return steps, sources

    def _leak(self) -> str | None:
        """A value not derived from the cut that enters the region or is one of its outputs."""
        program, names = self.program, {s: n for n, s in self.program.names.items()}
        roots = [self._slot(name) for name in self.outputs]
        steps, sources = self._needed(roots, self._cut)
        stray = sources - self._cut - program.constants.keys()
        if not stray:
            return None
        inside, loose = set(self._cut), set(stray)
        for index in sorted(steps):
            step = program.steps[index]
            (inside if inside & set(step.ins) else loose).update(step.outs)
            if not inside & set(step.ins) and not loose & set(step.ins):
                loose.difference_update(step.outs)
        for index in sorted(steps):
            ins = set(program.steps[index].ins)
            if ins & inside and ins & loose:
                return names.get(min(ins & loose), "?")
        return names[min(stray)]

    def _plan(self, wanted: tuple, watch: Mapping[str, Any], given: Iterable[int]) -> Plan:
        key = (wanted, tuple(watch), frozenset(given))
        if key not in self._plans:
            self._plans[key] = self._make_plan(wanted, watch, frozenset(given))
        return self._plans[key]

    def _make_plan(self, wanted: tuple, watch: Mapping[str, Any], given: frozenset[int]) -> Plan:
        program = self.program
        results = {self._slot(name) for name in wanted}
        seen = {
            program.steps[program.inner_names[name]].outs[0]
            if name in program.inner_names and name not in program.names
            else self._slot(name)
            for name in watch
        }
        indices, sources = self._needed(results | seen, given | self._cut)
        missing = sorted(
            name
            for name in self.inputs
            if program.names[name] in sources and program.names[name] not in given
        )
        if missing:
            raise DataError(f"no feed for input {missing[0]!r}", hint="give every input it needs")
        with using_threads(self.threads):
            steps, keep = self._constants.fold(sorted(indices), results | seen, given)
        template: list[Any] = [None] * len(program.types)
        for slot, value in keep.items():
            template[slot] = value
        return schedule(joined(steps, results | seen), results | keep.keys(), template)

    def _announce(self, watch: Watch, slots: list[Any]) -> dict[int, list[str]]:
        """Report what is there before the run; return slot -> names for what is computed."""
        names: dict[int, list[str]] = {}
        for name in watch:
            if name in self.program.names:
                names.setdefault(self.program.names[name], []).append(name)
        for slot, group in names.items():
            if slots[slot] is not None:
                for name in group:
                    watch[name](slots[slot])
        return names


def _check_param(name: str, tensor: torch.Tensor, expected: torch.dtype, param: bool) -> None:
    if tensor.dtype != expected and not (param and tensor.is_floating_point()):
        raise DataError(f"{name!r} is {tensor.dtype}, expected {expected}", hint="convert it first")


@contextlib.contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Set torch's thread count for the duration; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
