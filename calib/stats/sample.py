"""One observed tensor, prepared once for every statistic that wants it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ir.errors import DataError

# types that torch does not reduce
_WIDER = {
    torch.bool: torch.uint8,
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.float64,
    torch.float8_e4m3fn: torch.float32,
    torch.float8_e4m3fnuz: torch.float32,
    torch.float8_e5m2: torch.float32,
    torch.float8_e5m2fnuz: torch.float32,
    torch.float8_e8m0fnu: torch.float32,
}


class Sample:
    """A tensor with its masked elements told apart and its finiteness checked.

    array: torch tensor or anything numpy reads, any shape; ignore_below: elements at or below
    this number are mask constants (finfo.min, -inf, -1e9) and enter no statistic; name: the
    value's name, for messages. What is asked for twice is computed once.

    raises: DataError when an element that is not masked is NaN or infinite, or on complex data.
    """

    def __init__(
        self, array: Any, *, ignore_below: float | None = None, name: str | None = None
    ) -> None:
        tensor = array.detach() if isinstance(array, torch.Tensor) else _from_numpy(array)
        if tensor.is_complex():
            raise DataError(
                f"complex data ({tensor.dtype}) has no range",
                at=_at(name),
                hint="observe its parts",
            )
        wider = _WIDER.get(tensor.dtype)
        self.tensor = tensor if wider is None else tensor.to(wider)
        self.name = name
        self.ignore_below = ignore_below
        self._extremes: dict[int | None, tuple[Any, Any]] = {}

    @cached_property
    def masked(self) -> torch.Tensor | None:
        """True where an element is a mask constant; None when there is none (NaN is not one)."""
        if self.ignore_below is None:
            return None
        masked = self.tensor <= self.ignore_below
        return masked if bool(masked.any()) else None

    @cached_property
    def flat(self) -> torch.Tensor:
        """The elements that count, one axis, in their own dtype."""
        if self.masked is None:
            return self.tensor.reshape(-1)
        return self.tensor[~self.masked]

    @cached_property
    def floats(self) -> torch.Tensor:
        """`flat` as float32, or float64 where float32 would lose bits (int32, int64, float64)."""
        return self.flat.to(_float_type(self.tensor.dtype))

    @property
    def size(self) -> int:
        return self.flat.numel()

    @cached_property
    def range(self) -> tuple[float, float]:
        """(lowest, highest) element that counts; this is where finiteness is checked."""
        low, high = (side.item() for side in torch.aminmax(self.flat))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(
                f"value holds {self._oddities()} of {self.size} elements",
                at=_at(self.name),
                hint="check the calibration data and the float model there, or declare the mask",
            )
        return float(low), float(high)

    def grouped(self, axis: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The tensor as [before, channels, after] and its mask alike; channels is 1 for no axis."""
        shape = self.tensor.shape
        if axis is None:
            grouped = (1, 1, self.tensor.numel())
        elif not -len(shape) <= axis < len(shape):
            raise DataError(f"axis {axis} does not exist in shape {list(shape)}", at=_at(self.name))
        else:
            axis %= len(shape)
            grouped = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        masked = None if self.masked is None else self.masked.reshape(grouped)
        return self.tensor.reshape(grouped), masked

    def extremes(self, axis: int | None) -> tuple[Any, Any]:
        """float64 (lows, highs): scalars without an axis, else [channels].

        A channel of which every element is masked has (inf, -inf).
        """
        if axis not in self._extremes:
            self._extremes[axis] = self.range if axis is None else self._channel_extremes(axis)
        return self._extremes[axis]

    def _channel_extremes(self, axis: int) -> tuple[Any, Any]:
        _ = self.range
        values, masked = self.grouped(axis)
        if masked is None:
            lows, highs = values.amin(dim=(0, 2)), values.amax(dim=(0, 2))
        else:
            values = values.to(_float_type(values.dtype))
            lows = values.masked_fill(masked, math.inf).amin(dim=(0, 2))
            highs = values.masked_fill(masked, -math.inf).amax(dim=(0, 2))
        return lows.double().numpy(), highs.double().numpy()

    def _oddities(self) -> str:
        values = self.flat
        counts = {
            "NaN": int(torch.isnan(values).sum()),
            "+Inf": int(torch.isposinf(values).sum()),
            "-Inf": int(torch.isneginf(values).sum()),
        }
        return " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _from_numpy(array: Any) -> torch.Tensor:
    array = np.asarray(array)
    if array.dtype.kind not in "biufc":  # ml_dtypes: bfloat16, float8, int4
        array = array.astype(np.float32)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # require(): torch shares memory with writable C-contiguous arrays only; it copies the others
    return torch.from_numpy(np.require(array, requirements=["C", "W"]).reshape(array.shape))


def _float_type(dtype: torch.dtype) -> torch.dtype:
    """float32 where it holds every number of `dtype`, else float64."""
    exact = dtype.itemsize <= 4 if dtype.is_floating_point else dtype.itemsize <= 2
    return torch.float32 if exact else torch.float64


def _at(name: str | None) -> str | None:
    return None if name is None else f"%{name}"
