"""Ctrl-C, a kill, and going on afterwards: through the real command, in a process of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import backends
from tests.helpers import TINY

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds that a busy machine may take to come as far as calibration."""


@pytest.fixture
def long_data(files) -> str:
    """Many small batches of different sizes: seconds of calibration."""
    folder = Path(files["many"])
    folder.mkdir()
    feed = TINY["conv"].calibration(1)[0]["image"]
    for number in range(1500):
        np.savez(folder / f"{number:04d}.npz", image=feed[: 1 + number % 2] * (1 + number % 7))
    return str(folder)


class Running:
    """`ptqc quantize` with a terminal as its stderr."""

    def __init__(self, files, data: str, *more: str) -> None:
        self.screen, terminal = pty.openpty()
        arguments = ["quantize", files["conv.onnx"], "-r", "w8a8", "--calib", data,
                     "--samples", "100000", "-o", files["out"], *more]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "passes", *arguments], cwd=ROOT, stderr=terminal,
            stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"},
        )  # fmt: skip
        os.close(terminal)
        self.seen = b""

    def read(self, seconds: float) -> bool:
        """More of what stderr shows; False at its end."""
        if not select.select([self.screen], [], [], seconds)[0]:
            return True
        try:
            more = os.read(self.screen, 65536)
        except OSError:  # how a terminal says that nobody writes there any more
            return False
        self.seen += more
        return bool(more)

    def until(self, words: bytes) -> None:
        end = time.monotonic() + PATIENCE
        while words not in self.seen:
            assert time.monotonic() < end, f"never said {words!r}: {self.seen[-500:]!r}"
            assert self.read(0.2), self.seen.decode(errors="replace")

    def end(self) -> tuple[int, str]:
        """Exit status, and all that stderr showed."""
        while self.read(PATIENCE):
            pass
        os.close(self.screen)
        return self.process.wait(PATIENCE), self.seen.decode(errors="replace")


def test_interrupted_calibration_goes_on_where_it_was(files, long_data: str) -> None:
    before = files.snapshot()
    running = Running(files, long_data, "--resume", files["half"])
    running.until(b"calibrating")
    running.process.send_signal(signal.SIGINT)
    status, said = running.end()
    assert status == 130, said
    assert "ptqc: stopped; nothing was written to" in said
    assert f"the same command goes on from {files['half']}" in " ".join(said.split())
    assert "Traceback" not in said
    left = files.snapshot()
    (checkpoint,) = set(left) - set(before)
    assert checkpoint.startswith("half.step")
    assert {name: left[name] for name in before} == before

    status, said = Running(files, long_data, "--resume", files["half"]).end()
    assert status == 0, said
    assert checkpoint not in files.snapshot()
    resumed = Path(files["out"], "model.onnx").read_bytes()
    status, said = Running(files, long_data).end()
    assert status == 0, said
    assert Path(files["out"], "model.onnx").read_bytes() == resumed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_calibrating(files, long_data: str, number: signal.Signals) -> None:
    before = files.snapshot()
    running = Running(files, long_data)
    running.until(b"calibrating")
    running.process.send_signal(number)
    status, _ = running.end()
    assert status == (-number if number == signal.SIGKILL else 130)
    assert files.snapshot() == before


@pytest.mark.slow
def test_killed_at_any_moment(files) -> None:
    """The artifact that stood there is there and whole, or the new one is."""
    rng = np.random.default_rng(0)
    status, said = Running(files, files["conv.npz"]).end()
    assert status == 0, said
    user = {name: digest for name, digest in files.snapshot().items() if not name.startswith("out")}
    for delay in rng.uniform(2.0, 8.0, 12):
        running = Running(files, files["conv.npz"], "--seed", str(int(delay * 1000)))
        time.sleep(delay)
        running.process.kill()
        running.end()
        assert backends.load(files["out"]).run(TINY["conv"].evaluation(1)[0])
        now = files.snapshot()
        assert {name: now[name] for name in user} == user


def test_interrupted_command_in_this_process(ptqc, files, monkeypatch) -> None:
    """Whatever it was doing, Ctrl-C ends in one line and status 130."""
    before = files.snapshot()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(backends, "build", interrupted)
    ran = ptqc("quantize", files["mlp.onnx"], "-r", "w8a16", "-o", files["out"])
    assert ran.status == 130
    assert ran.err.startswith("ptqc: stopped; nothing was written")
    assert files.snapshot() == before
