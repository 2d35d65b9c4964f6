"""A compiled program made ready to run: which steps, over which slots, what to free when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import onnx_ir as ir

from ir.errors import BackendError, PtqcError

NOTHING = 0  # the slot of every absent optional input; always None


class Step(NamedTuple):
    fn: Callable[..., Any]
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    node: ir.Node
    random: bool = False


class Plan(NamedTuple):
    """A program made ready for one set of roots: constants in place, frees decided."""

    template: list[Any]
    steps: list[tuple[Callable[..., Any], tuple[int, ...], Any, tuple[int, ...], ir.Node]]


def schedule(steps: Iterable[Step], keep: set[int], template: list[Any]) -> Plan:
    """Fix after which step every slot is freed; `keep` (roots, constants) never are."""
    steps, last, seen = list(steps), [], set(keep) | {NOTHING}
    for step in reversed(steps):
        touched = dict.fromkeys(step.ins + step.outs)
        free = tuple(slot for slot in touched if slot not in seen)
        seen.update(free)
        outs = step.outs[0] if len(step.outs) == 1 else step.outs
        last.append((step.fn, step.ins, outs, free, step.node))
    return Plan(template, last[::-1])


def execute(plan: Plan, slots: list[Any]) -> None:
    """Run a plan's steps over `slots`."""
    node = None
    try:
        for fn, ins, outs, free, node in plan.steps:  # noqa: B007
            result = fn(*[slots[i] for i in ins])
            if outs.__class__ is int:
                slots[outs] = result if result.__class__ is not tuple else result[0]
            else:
                if result.__class__ is not tuple:
                    result = (result,)
                for slot, value in zip(outs, result, strict=False):
                    slots[slot] = value
                slots[NOTHING] = None
            for slot in free:
                slots[slot] = None
    except (PtqcError, MemoryError):
        raise
    except Exception as error:
        raise failed(node, error) from error


def execute_watched(
    plan: Plan, slots: list[Any], names: Mapping[int, Iterable[str]], watch: Mapping[str, Callable]
) -> None:
    """As `execute`, and hands every watched value (also inside bodies) to its observer."""
    for fn, ins, outs, free, node in plan.steps:
        args = [slots[i] for i in ins]
        try:
            result = fn(*args, watch=watch) if hasattr(fn, "bodies") else fn(*args)
        except (PtqcError, MemoryError):
            raise
        except Exception as error:
            raise failed(node, error) from error
        del args
        outs = (outs,) if isinstance(outs, int) else outs
        results = result if isinstance(result, tuple) else (result,)
        for slot, value in zip(outs, results, strict=False):
            slots[slot] = value
            for name in names.get(slot, ()):
                watch[name](value)
        slots[NOTHING] = result = results = None
        for slot in free:
            slots[slot] = None


def failed(node: Any, error: Exception) -> BackendError:
    text = " ".join(str(error).split())[:300]
    hint = "check the shapes and types that reach this node"
    return BackendError(f"{type(error).__name__} while running a node: {text}", at=node, hint=hint)
