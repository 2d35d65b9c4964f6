"""Learn what a region of a coded graph should hold so that it computes what the float region did.

    replay = Replay(Executor(teacher), Executor(student), feeds, rows=valid)
    for region in regions(teacher):
        cache = replay.enter(region)                        # inputs and targets of this region only
        found = reconstruct(cache, {"p": start}, replace)   # parameters -> {value name: tensor}
        replay.settle(replace(found.parameters))            # later regions see it in their inputs

A region is named by values that both graphs compute; `replace` may give new tensors for
initializers and for any value that the student computes on the way (a decoded weight).
"""

from calib.replay.judge import Outputs
from calib.replay.loop import Found, Settings, reconstruct
from calib.replay.loss import mean_square, relative_square, top_divergence
from calib.replay.regions import Region, regions
from calib.replay.saved import Saved, work_key
from calib.replay.stream import Cache, Replay

__all__ = [
    "Cache",
    "Found",
    "Outputs",
    "Region",
    "Replay",
    "Saved",
    "Settings",
    "mean_square",
    "reconstruct",
    "regions",
    "relative_square",
    "top_divergence",
    "work_key",
]
