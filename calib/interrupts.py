"""Ctrl-C that waits until the step in hand is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def whole_steps(wanted: bool = True) -> Iterator[None]:
    """Ctrl-C waits for the step in hand, so that it can be saved; a second one does not."""
    before = signal.getsignal(signal.SIGINT)
    if not wanted or not callable(before) or threading.current_thread() != threading.main_thread():
        yield
        return
    asked = False

    def wait(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            before(number, frame)
        asked = True

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
