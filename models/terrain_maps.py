"""What a quantized terrain_unet is judged by: its maps beside the float maps of equal noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib.metrics.images import Likeness, Similarity, mean_slope
from models.terrain_unet import HEIGHT_RANGE, postprocess


@dataclass(frozen=True)
class MapComparison:
    """likeness of the heights, of range 22.17 m; slopes in metres a pixel.

    The slope must rise with the difficulty asked for, which a likeness does not show.
    """

    likeness: Similarity
    slope: float
    slope_float: float


def compare_maps(reference: np.ndarray, test: np.ndarray) -> MapComparison:
    """Outputs `denoised` f32[n, 1, 128, 128] of the float and of the quantized model."""
    heights, found = postprocess(reference), postprocess(test)
    likeness = Likeness(HEIGHT_RANGE)
    likeness.add(heights, found)
    return MapComparison(likeness.result(), mean_slope(found), mean_slope(heights))
