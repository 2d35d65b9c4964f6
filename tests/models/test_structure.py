"""Residual blocks of the reference models after `clean`: as many as the architecture has."""

from collections import Counter

import passes
from ir.analysis.blocks import blocks
from models import capture, dit


def kinds(model) -> Counter:
    return Counter(b.kind for b in blocks(passes.run(capture(model), "clean").graph))


def test_the_diffusion_transformer_has_two_gated_residuals_per_layer():
    assert kinds(dit) == {"residual": 4 * 2}  # x + gate * attention, x + gate * mlp
