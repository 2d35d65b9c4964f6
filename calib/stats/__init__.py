"""Statistics of values: one small file each, all with add(), merge() and a frozen result().

    stat = MinMax(axis=1)                  # options are fields; axis=None is the whole tensor
    stat.add(array)                        # numpy, torch; ignore_below=-1e8 skips masks
    stat.merge(other)                      # as if other's arrays had been added here
    stat.result()                          # Range(low, high, count)
    save(path, {"h": [stat]}); load(path)  # one .npz, no pickles

`absmax minmax moving_average percentile histogram moments gram` are their names in text; BY_NAME
finds the class. Searches of a clip range in a histogram are pure functions in `clip_search`.
"""

from calib.stats.absmax import AbsMax
from calib.stats.base import REGISTRY, Range, Stat
from calib.stats.clip_search import (
    entropy_range,
    minmax_range,
    mse_range,
    percentile_range,
    search,
)
from calib.stats.gram import Gram, GramResult
from calib.stats.histogram import Bins, Histogram, HistogramResult
from calib.stats.minmax import MinMax
from calib.stats.moments import Moments, MomentsResult
from calib.stats.moving_average import MovingAverage
from calib.stats.percentile import Percentile
from calib.stats.sample import Sample
from calib.stats.store import load, save

BY_NAME = REGISTRY

__all__ = [
    "BY_NAME",
    "AbsMax",
    "Bins",
    "Gram",
    "GramResult",
    "Histogram",
    "HistogramResult",
    "MinMax",
    "Moments",
    "MomentsResult",
    "MovingAverage",
    "Percentile",
    "Range",
    "Sample",
    "Stat",
    "entropy_range",
    "load",
    "minmax_range",
    "mse_range",
    "percentile_range",
    "save",
    "search",
]
