"""Fold a map of a stream's channels into the constants that write and read it.

Each map is computed in float64 and cast once. A tensor that other nodes read as well is copied for
this one; every value whose meaning changes takes a fresh name. `<map>_refusal` says beforehand why
a map does not fit; the fold itself raises ValueError with the same words.
"""

from .permute import fold_permute, permute_refusal
from .repeat import fold_repeat, repeat_refusal
from .scale import fold_scale, scale_refusal
from .shift import fold_shift, shift_refusal

__all__ = [
    "fold_permute",
    "fold_repeat",
    "fold_scale",
    "fold_shift",
    "permute_refusal",
    "repeat_refusal",
    "scale_refusal",
    "shift_refusal",
]
