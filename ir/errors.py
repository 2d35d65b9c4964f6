"""Every error ptqc raises on purpose: what went wrong, where, and what to do next."""

from __future__ import annotations

from pathlib import PurePath


class PtqcError(Exception):
    """One clear line: the cause, where it was seen, and the next move.

    `at` names the node, value, step or file; `hint` says what to do. `exit_code` is the
    command's exit status (0 is success, 1 is a defect of ptqc, 2 is argparse's).
    """

    exit_code = 3

    def __init__(self, cause: str, *, at: object = None, hint: str = "") -> None:
        self.cause = cause
        self.at = at
        self.hint = hint
        super().__init__(cause)

    def __str__(self) -> str:
        where = f" (at {describe(self.at)})" if self.at is not None else ""
        hint = f"; {self.hint}" if self.hint else ""
        return " ".join(f"{self.cause}{where}{hint}".split())


class CaptureError(PtqcError):
    """The model could not be read: damaged, hostile, or using something ptqc does not support."""

    exit_code = 4


class DataError(PtqcError):
    """Calibration or evaluation data is missing, empty, not finite, or of a wrong shape or type."""

    exit_code = 5


class PipelineError(PtqcError):
    """Found before any work: an unknown pass, recipe or option, or steps in an impossible order."""

    exit_code = 6


class PassError(PtqcError):
    """A pass cannot do what it was asked to do."""

    exit_code = 7


class VerifyError(PtqcError):
    """A graph broke the rules of its stage, or an EXACT pass moved an output."""

    exit_code = 8


class BackendError(PtqcError):
    """A backend cannot lower, build, load or run a graph, or an op has no meaning there."""

    exit_code = 9


class OutputError(PtqcError):
    """The result could not be written; whatever stood there before is untouched."""

    exit_code = 10


def describe(at: object) -> str:
    """A node as `Op 'name'`, a value as `%name`, anything else as its text."""
    if isinstance(at, PurePath):
        return str(at)
    op_type = getattr(at, "op_type", None)
    if op_type is not None:
        return f"{op_type} '{getattr(at, 'name', None) or '?'}'"
    name = getattr(at, "name", None)
    return f"%{name}" if isinstance(name, str) else str(at)
