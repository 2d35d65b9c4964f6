"""Where a command's words go: results to stdout; progress, warnings and errors to stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

PATIENCE = 1.0
"""Seconds that work may take before a progress bar appears."""
PLAIN_WIDTH = 120
"""Columns of tables that go to a file or a pipe."""


class Screen:
    """One command's output. `json_to`: None, a file, or `-` for stdout, and nothing else there."""

    def __init__(self, json_to: str | None = None) -> None:
        self.json_to = json_to
        self.warnings: list[str] = []
        self._bar: Bar | None = None

    def show(self, *parts: RenderableType) -> None:
        """Print results to stdout."""
        if self.json_to == "-":
            return
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
        for part in parts:
            console.print(part)

    def say(self, line: str) -> None:
        """One line to stderr, above a progress bar if there is one."""
        if self._bar is not None:
            self._bar.print(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning on stderr, each text once; kept for the report."""
        line = " ".join(text.split())
        if line not in self.warnings:
            self.warnings.append(line)
            self.say(f"ptqc: warning: {line}")

    @contextlib.contextmanager
    def working(self, label: str) -> Iterator[Bar]:
        """A progress bar on stderr, when that is a terminal and the work lasts over a second."""
        with Bar(label) as bar:
            self._bar = bar
            try:
                yield bar
            finally:
                self._bar = None

    def json(self, found: Any) -> None:
        """Write a command's results where `--json` says."""
        if self.json_to is None:
            return
        text = json.dumps(plain(found), indent=1, allow_nan=False) + "\n"
        if self.json_to == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        else:
            write_whole(Path(self.json_to), text)


class Bar:
    """`step(label)` names what is going on; `units(what, done, total)` counts inside it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self._detail = ""
        self._progress: Progress | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            self._timer = threading.Timer(PATIENCE, self._appear)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._progress is not None:
                self._progress.stop()

    def step(self, label: str) -> None:
        """Work of another kind begins."""
        self.label = label
        self.units("", 0, None)

    def units(self, what: str, done: int, total: int | None) -> None:
        """`done` of `total` units of the present step are done; total None: unknown."""
        self._detail = what
        if self._progress is not None:
            self._progress.update(self._task, description=self._text(), completed=done, total=total)

    def print(self, line: str) -> None:
        if self._progress is not None and self._progress.live.is_started:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _text(self) -> str:
        return f"{self.label}: {self._detail}" if self._detail else self.label

    def _appear(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        with self._lock:
            if self._timer is None:
                return
            progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = progress.add_task(self._text(), total=None)
            self._progress = progress
            progress.start()


def version() -> str:
    """The installed version, or that of a checkout."""
    try:
        return metadata.version("ptqc")
    except metadata.PackageNotFoundError:
        return "from a checkout"


def write_whole(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it: whole or not at all."""
    from ir.errors import OutputError

    stage = path.with_name(f".{path.name}.{threading.get_native_id()}.tmp")
    try:
        stage.write_text(text, "utf-8")
        stage.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}",
            at=path,
            hint="free some space or choose another place; what stood there is untouched",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            stage.unlink(missing_ok=True)


def plain(found: Any) -> Any:
    """What JSON can say: numbers that are not finite become the texts "inf", "-inf", "nan"."""
    if isinstance(found, dict):
        return {str(key): plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple, set, frozenset)):
        return [plain(value) for value in found]
    if isinstance(found, (str, bool, int, type(None))):
        return found
    if isinstance(found, float):
        return found if math.isfinite(found) else str(found)
    if hasattr(found, "item"):
        return plain(found.item())
    return str(found)
