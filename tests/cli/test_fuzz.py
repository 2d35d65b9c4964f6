"""Mutated models: a clean error or right numbers, never a crash, never wrong numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.cli import fuzzing

ROOT = Path(__file__).parents[2]


def run(folder: Path, first: int, last: int) -> list[dict]:
    """The mutants' verdicts; fails when the process dies of one."""
    fuzzing.prepare(folder)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.cli.fuzzing", folder, str(first), str(last)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert ran.returncode == 0, (
        f"mutant {first + len(found)} ended the process: {ran.stderr[-2000:]}"
    )
    return found


def check(found: list[dict]) -> None:
    bad = [row for row in found if row["verdict"].startswith(("WRONG", "DEFECT"))]
    assert not bad, "\n".join(map(str, bad))
    counts = Counter(row["verdict"] for row in found)
    assert counts["refused"] > len(found) / 5, counts
    assert counts["right"] > len(found) / 20, counts


def test_some_mutants(tmp_path: Path) -> None:
    check(run(tmp_path, 0, 60))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_mutants(tmp_path: Path, part: int) -> None:
    check(run(tmp_path, 1000 * part + 100, 1000 * part + 350))


def test_the_judge_sees_wrong_numbers(tmp_path: Path) -> None:
    fuzzing.prepare(tmp_path)
    from passes.cli import main

    arguments = ["--calib", tmp_path / "mlp.npz", "-o", tmp_path / "out"]
    assert main([*map(str, ["quantize", tmp_path / "mlp.onnx", "-r", "w8a8", *arguments])]) == 0
    feeds = dict(np.load(tmp_path / "mlp.npz"))
    told = fuzzing.verdict(tmp_path / "mlp.onnx", tmp_path / "out", feeds, exact=True)
    assert told.startswith("WRONG: differs by")
