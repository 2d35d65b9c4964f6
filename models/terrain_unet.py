"""A one-step consistency model of height maps: a diffusion U-Net with attention, 10.5 M parameters.

source:   adaptive-terrain-diffusion 0.4.2 (MIT), ONNX opset 18, fp32
inputs:   noisy f32[batch, 1, 128, 128], the noise of that level (added to a map, if any);
          sigma f32[batch] in 0.002..80; difficulty f32[batch] in 0..1
outputs:  denoised f32[batch, 1, 128, 128]
notes:    196 Conv, 139 InstanceNormalization (GroupNorm), 59 Gemm, attention as 56 Einsum. One step
          only: it says nothing on how errors build up over the steps of a sampler
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calib.data.stratified import stratified
from models.weights.packages import package_file

WEIGHTS = (
    "adaptive-terrain-diffusion",
    "0.4.2",
    "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx",
    "95be54b4a39d58320e187a7ec533351c957f16a00be58773c86074828ee67887",
)
DYNAMIC = {"noisy": {0: "batch"}, "sigma": {0: "batch"}, "difficulty": {0: "batch"}}
OUTPUTS = ("denoised",)
SIGMA_MAX = 80.0
HEIGHT_RANGE = 22.16864013671875
ASINH_SCALE = 0.1


def load() -> Path:
    return package_file(*WEIGHTS)


def example() -> dict[str, np.ndarray]:
    return _feed(np.random.default_rng(0))


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n feeds of one map each: pure noise at the highest level, difficulties evenly spread."""
    rng = np.random.default_rng(1)
    feeds = [_feed(rng) for _ in range(4 * n)]
    return stratified(feeds, n, lambda feed: float(feed["difficulty"][0]), strata=n)


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    return [_feed(rng) for _ in range(n)]


def _feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    noise = rng.standard_normal((1, 1, 128, 128), np.float32)
    difficulty = (rng.integers(1, 101) - 1) / 99
    return {
        "noisy": noise * np.float32(SIGMA_MAX),
        "sigma": np.array([SIGMA_MAX], np.float32),
        "difficulty": np.array([difficulty], np.float32),
    }


def postprocess(denoised: np.ndarray) -> np.ndarray:
    """Heights in metres, 0 to 22.17: the model works on asinh(height / 0.1), scaled to -1..1."""
    unit = np.clip((denoised + 1) / 2, 0, 1)
    return ASINH_SCALE * np.sinh(unit * np.arcsinh(HEIGHT_RANGE / ASINH_SCALE))
