"""Every rule that divides or shifts channels leaves the reference models what they compute."""

import pytest

import passes
from tests.models.reference import captured, drawn, params

STEPS = ("smooth{alpha=0.5,online=false}", "scale_salient", "suppress", "shift{gain=0}",
         "smooth_model{samples=1,judged=1}")  # fmt: skip
OTHERS = ("digits_cnn", "fashion_cnn", "big24", "terrain_unet", "ppocr_det", "mobilenetv2",
          "resnet18", "efficientnet_lite0", "whisper_decoder", "whisper_cross")  # fmt: skip
MOST = {"dit": 3e-5}
"""Relative difference of an output, where float32 alone does not keep 1e-5."""


@pytest.mark.parametrize("name", params(*OTHERS))
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("harm", ["", "inject_outliers | "])
def test_the_manager_finds_no_difference(name, step, harm):
    """It runs both sides of every EXACT step, on what the model was captured with."""
    result = passes.run(captured(name), f"clean | {harm}{step}", data=drawn(name)[:1])
    last = result.report.steps[-1]
    assert last.sites or last.skips
    assert last.sites or not harm or step.startswith("shift")
    if last.sites:
        assert last.difference is not None
        assert last.difference <= MOST.get(name, 1e-5)
