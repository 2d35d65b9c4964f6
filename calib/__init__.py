"""Calibration: feeds that fit a graph, statistics of its values, and measures of error.

    batches = data.load("photos/", graph, preprocess="resize=256,crop=224,mean=127,std=128")
    found = observe(graph, batches, {"h": [stats.Histogram()], "x": [stats.Gram(axis=-1)]})
    bins, = found["h"][0].result()
    low, high = stats.mse_range(bins, levels=256)
    metrics.sqnr_db(reference, test)

`data` reads arrays, files and iterables; `stats` are accumulators with add(), merge() and
result(); `observe` walks the data once for all of them; `metrics` compares tensors.
"""

from calib import data, metrics, stats
from calib.observe import Observed, observe

__all__ = ["Observed", "data", "metrics", "observe", "stats"]
