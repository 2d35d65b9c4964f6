"""What several test files share."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

import ir
from models.tiny import attention, conv, llama, mlp

TINY: dict[str, ModuleType] = {"mlp": mlp, "conv": conv, "attention": attention, "llama": llama}


@cache
def tiny_graph(name: str) -> ir.Graph:
    """A tiny model as a graph whose free dimensions are free; shared, so never write into it."""
    model = TINY[name]
    dynamic = {
        key: dict.fromkeys(axes, torch.export.Dim.AUTO) for key, axes in model.DYNAMIC.items()
    }
    return ir.capture(model.load(), model.example(), dynamic=dynamic)
