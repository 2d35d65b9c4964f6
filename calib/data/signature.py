"""What a graph asks of a batch, and the check that a batch gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir

from ir.errors import DataError

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Input:
    """One graph input. shape: ints are fixed, strings and None are free; None = unknown rank."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        dims = "any rank" if self.shape is None else ",".join(str(d or "?") for d in self.shape)
        return f"%{self.name}: {self.dtype}[{dims}]"

    def accept(self, array: np.ndarray, where: str) -> np.ndarray:
        """The array in the input's type; raises DataError naming expected and found."""
        shape = self.shape
        if shape is not None and (
            array.ndim != len(shape)
            or any(isinstance(d, int) and d != n for d, n in zip(shape, array.shape, strict=True))
        ):
            found = ",".join(map(str, array.shape))
            raise DataError(
                f"expected {self}, found shape [{found}]",
                at=where,
                hint="reshape the data, or declare resize, crop, length or window",
            )
        if array.dtype.kind not in "biuf" and array.dtype.kind != "V":
            raise DataError(f"expected {self}, found {array.dtype}", at=where, hint="give numbers")
        _check_finite(array, self.name, where)
        return _cast(array, self, where)


def inputs_of(graph: onnx_ir.Model) -> tuple[Input, ...]:
    """The graph's inputs in order, without those that have a default (an initializer).

    raises: DataError on an input that is no tensor of numbers.
    """
    body = graph.graph
    return tuple(_input(value) for value in body.inputs if value.name not in body.initializers)


def _input(value: onnx_ir.Value) -> Input:
    try:
        dtype = np.dtype(value.dtype.numpy())  # type: ignore[union-attr]
    except (AttributeError, TypeError) as error:
        raise _unfit(value) from error
    if dtype.kind not in "biufV" or not isinstance(value.type, onnx_ir.TensorType):
        raise _unfit(value)
    shape = value.shape
    dims = None if shape is None else tuple(_dim(dim) for dim in shape)
    return Input(value.name or "", dtype, dims)


def _unfit(value: onnx_ir.Value) -> DataError:
    return DataError(
        f"input of type {value.type} cannot be fed",
        at=value,
        hint="only tensors of numbers can: cut the graph behind that input",
    )


def _dim(dim: Any) -> int | str | None:
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return dim.value if isinstance(dim.value, str) else None


def as_feed(item: Any, inputs: Sequence[Input], where: str) -> Feed:
    """A dict, one array, or arrays in input order, as a dict of arrays; types are not looked at.

    raises: DataError on missing or unknown names, or a wrong number of arrays.
    """
    if not isinstance(item, Mapping):
        many = isinstance(item, (tuple, list)) and len(inputs) != 1
        arrays = item if many or _is_wrapped(item) else [item]
        if len(arrays) != len(inputs):
            raise DataError(
                f"found {len(arrays)} arrays for {len(inputs)} inputs: {_listed(inputs)}",
                at=where,
                hint="give a dict {input name: array}, without labels",
            )
        item = {one.name: array for one, array in zip(inputs, arrays, strict=True)}
    wanted = {one.name for one in inputs}
    missing, unknown = sorted(wanted - set(item)), sorted(map(str, set(item) - wanted))
    if missing or unknown:
        said = [f"missing {', '.join(missing)}"] if missing else []
        said += [f"unknown {', '.join(unknown)}"] if unknown else []
        raise DataError(
            f"names do not fit the inputs {_listed(inputs)}: {'; '.join(said)}",
            at=where,
            hint="rename or drop arrays, or pick them by 'input=key' in the preprocessing text",
        )
    return {one.name: as_array(item[one.name], where) for one in inputs}


def as_array(item: Any, where: str) -> np.ndarray:
    """numpy, torch, or nested numbers as an array; memory maps stay maps."""
    if hasattr(item, "detach"):
        item = item.detach().cpu()
        item = item.float() if str(item.dtype) == "torch.bfloat16" else item
    try:
        array = np.asarray(item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"not an array: {error}", at=where, hint="give numpy arrays") from error
    if array.dtype.kind == "O":
        raise DataError(
            f"not an array of numbers but of {type(item).__name__}",
            at=where,
            hint="give arrays of equal shape, or a dict {input name: array}",
        )
    return array


def _is_wrapped(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) > 0 and hasattr(item[0], "shape")


def _listed(inputs: Sequence[Input]) -> str:
    return ", ".join(map(str, inputs))


def _check_finite(array: np.ndarray, name: str, where: str) -> None:
    if array.dtype.kind in "biu" or not array.size:
        return
    wide = array.astype(np.float32) if array.dtype.kind == "V" else array
    if np.isfinite(wide.min()) and np.isfinite(wide.max()):
        return
    raise DataError(
        f"%{name} holds {int(np.isnan(wide).sum())} NaN and {int(np.isinf(wide).sum())} Inf"
        f" of {wide.size} elements",
        at=where,
        hint="clean the data; write a mask as a large finite number",
    )


def _cast(array: np.ndarray, wanted: Input, where: str) -> np.ndarray:
    """To the input's type when nothing is lost, or from float64 to float32."""
    dtype = wanted.dtype
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
        rounded = array.dtype == np.float64 and dtype == np.float32
        if rounded:
            kept = bool(np.isfinite(cast).all())
        else:
            kept = _in_range(array, dtype) and np.array_equal(cast.astype(array.dtype), array)
    if not kept:
        raise DataError(
            f"expected {wanted}, found {array.dtype} values that do not fit it exactly",
            at=where,
            hint=f"convert the data to {dtype} first",
        )
    return cast


def _in_range(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether integers stay integers of the same sign; a round trip alone would wrap -1 unseen."""
    if dtype.kind not in "iu" or not array.size:
        return True
    bounds = np.iinfo(dtype)
    return bounds.min <= array.min().item() and array.max().item() <= bounds.max
