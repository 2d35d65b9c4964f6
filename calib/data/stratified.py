"""Few feeds that cover the range of a key evenly: time-step of a sampler, length of a sentence.

A denoiser's activations drift over its time-steps (Q-Diffusion, arXiv:2302.04304), a model of
speech or text has rare long inputs: feeds drawn at random show too little of the ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from calib.data.signature import Feed
from ir.errors import DataError


def stratified(
    feeds: Iterable[Feed],
    n: int,
    key: Callable[[Feed], float],
    strata: int = 20,
    seed: int = 0,
) -> list[Feed]:
    """n of the feeds, as many from each of `strata` parts of the key's range as there are.

    The parts have equal width; fewer feeds than parts: n parts. Within a part the draw is random,
    and a part that runs out leaves its share to the others. Any first m of the result are spread as
    evenly as m can be over the parts. All feeds are held while choosing.
    Raises DataError when there are fewer than n feeds, or a key is not finite.
    """
    feeds = list(feeds)
    if n < 1 or strata < 1:
        raise DataError(f"n is {n} and strata {strata}", hint="both must be 1 or more")
    if len(feeds) < n:
        raise DataError(f"{n} feeds wanted, {len(feeds)} given", hint="give more, or ask for fewer")
    keys = np.array([float(key(feed)) for feed in feeds])
    if not np.isfinite(keys).all():
        at = f"feed {int(np.argmin(np.isfinite(keys)))}"
        raise DataError("the key of a feed is not finite", at=at, hint="check the key function")
    return [feeds[i] for i in choose(keys, n, min(strata, n), np.random.default_rng(seed))]


def choose(keys: np.ndarray, n: int, strata: int, rng: np.random.Generator) -> list[int]:
    """Indices of n keys: rounds over the strata in random order, one of each stratum a round."""
    parts = parts_of(keys, strata)
    shuffled = rng.permutation(len(keys))
    rank = np.empty(len(keys), int)  # a key's place in the random order of its part
    for part in range(strata):
        members = shuffled[parts[shuffled] == part]
        rank[members] = np.arange(len(members))
    order = rng.permutation(strata)
    return np.lexsort((order[parts], rank))[:n].tolist()


def parts_of(keys: np.ndarray, strata: int) -> np.ndarray:
    """i64: which of `strata` equal parts of min..max holds each key; the maximum is in the last."""
    low, high = keys.min(), keys.max()
    if high == low:
        return np.zeros(len(keys), int)
    # The margin keeps equally spaced keys, such as the times of a sampler, one to a part.
    place = (keys - low) / (high - low) * strata
    return np.minimum((place + 1e-6).astype(int), strata - 1)
