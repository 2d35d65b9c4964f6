"""A progress bar for what lasts over a second, or a caller's own callback."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import rich.console
import rich.progress

Callback = Callable[[int, int | None], None]
Item = TypeVar("Item")
_PATIENCE = 1.0  # seconds


def track(
    items: Iterable[Item], total: int | None, progress: Callback | bool | None, label: str
) -> Iterator[Item]:
    """The items again. progress: a callback(done, total) after each, False for silence, else a bar
    on stderr, if that is a terminal, once a second has passed (True: on any stderr)."""
    if callable(progress):
        for done, item in enumerate(items, 1):
            yield item
            progress(done, total)
        return
    if progress is False or (progress is None and not sys.stderr.isatty()):
        yield from items
        return
    bar = rich.progress.Progress(console=rich.console.Console(stderr=True), transient=True)
    begun, task = time.monotonic(), bar.add_task(label, total=total)
    try:
        for done, item in enumerate(items, 1):
            yield item
            bar.update(task, completed=done)
            if not bar.live.is_started and time.monotonic() - begun > _PATIENCE:
                bar.start()
    finally:
        bar.stop()
