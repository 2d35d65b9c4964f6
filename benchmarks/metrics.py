"""How near a model's outputs are to the float model's: pure functions over lists of outputs.

An argument `expected` or `found` holds, per feed, the list of that feed's output arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Outputs = Sequence[Sequence[np.ndarray]]


def _pairs(expected: Outputs, found: Outputs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for wanted, got in zip(expected, found, strict=True):
        for a, b in zip(wanted, got, strict=True):
            if a.shape != b.shape:
                raise ValueError(f"output shapes differ: {a.shape} and {b.shape}")
            if a.dtype.kind == "f":
                yield a.astype(np.float64), b.astype(np.float64)


def at(arrays: Outputs, keep: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Of every output only the places where its feed's `keep` (over the leading axes) is true."""
    return [[array[where] for array in each] for each, where in zip(arrays, keep, strict=True)]


def sqnr_db(expected: Outputs, found: Outputs) -> float:
    """10 log10 of the float signal's power over that of the difference, in dB, over all feeds."""
    signal = noise = 0.0
    for a, b in _pairs(expected, found):
        signal += float((a**2).sum())
        noise += float(((a - b) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise else float("inf")


def cosine(expected: Outputs, found: Outputs) -> float:
    """Cosine between the two outputs, each all feeds laid end to end."""
    dot = aa = bb = 0.0
    for a, b in _pairs(expected, found):
        dot += float((a * b).sum())
        aa += float((a**2).sum())
        bb += float((b**2).sum())
    return dot / (aa * bb) ** 0.5 if aa and bb else 0.0


def agreement(expected: Outputs, found: Outputs, labels: Sequence[object]) -> float:
    """Share of predictions (arg max over the last axis) that are the float model's."""
    hits = [a.argmax(-1) == b.argmax(-1) for a, b in _pairs(expected, found)]
    return float(np.concatenate([hit.ravel() for hit in hits]).mean())


def accuracy(expected: Outputs, found: Outputs, labels: Sequence[object]) -> float:
    """Share of predictions that are the label."""
    hits = [out[0].argmax(-1) == np.asarray(y) for out, y in zip(found, labels, strict=True)]
    return float(np.concatenate([hit.ravel() for hit in hits]).mean())


def mask_iou(expected: Outputs, found: Outputs, labels: Sequence[object]) -> float:
    """Intersection over union of the pixels called text (above 0.3) by float and by quantized."""
    both = either = 0
    for a, b in _pairs(expected, found):
        both += int(((a > 0.3) & (b > 0.3)).sum())
        either += int(((a > 0.3) | (b > 0.3)).sum())
    return both / either if either else 1.0


TASK: dict[str, Callable[[Outputs, Outputs, Sequence[object]], float]] = {
    "agreement": agreement,
    "accuracy": accuracy,
    "mask_iou": mask_iou,
}
