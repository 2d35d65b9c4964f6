"""The reference models as graphs, captured once per test run."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import pytest

import ir
import models
import passes
from benchmarks import sources
from benchmarks.feeds import Feed
from ir.errors import DataError
from passes.loop import Check

FAST = ("digits_cnn", "digits_vit", "fashion_cnn", "fashion_vit", "dit")
SLOW = (
    "resnet18", "mobilenetv2", "efficientnet_lite0", "ppocr_det", "terrain_unet", "minilm",
    "whisper_encoder", "whisper_cross", "whisper_decoder", "smollm2_off_grid", "big24",
)  # fmt: skip


def params(*left_out: str) -> list:
    """Every model's name; those that need packages or long are marked slow."""
    names = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
    return [n for n in names if (n if isinstance(n, str) else n.values[0]) not in left_out]


@cache
def module(name: str) -> ModuleType:
    """The module of `models`. Skips without weights."""
    try:
        found = sources.module(name)
        if name in SLOW:
            found.load()
    except DataError as error:
        pytest.skip(str(error))
    return found


@cache
def captured(name: str) -> ir.Graph:
    return models.capture(module(name))


@cache
def cleaned(name: str) -> ir.Graph:
    return passes.run(captured(name), "clean", check=Check.NONE).graph


def drawn(name: str) -> list[Feed]:
    """Feeds of the example's sizes and of longer ones."""
    return sources.drawn(module(name), captured(name))
