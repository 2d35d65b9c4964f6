"""Sequences are Python lists; an empty optional is None."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from backends.torch.table import op


@op("SequenceConstruct")
def sequence_construct(*inputs: Any) -> list[Any]:
    return list(inputs)


@op("SequenceEmpty")
def sequence_empty(*, dtype: int = 1) -> list[Any]:
    return []


@op("SequenceAt")
def sequence_at(items: list[Any], position: Tensor) -> Any:
    return items[int(position)]


@op("SequenceInsert")
def sequence_insert(items: list[Any], item: Any, position: Tensor | None = None) -> list[Any]:
    place = len(items) if position is None else int(position)
    place = place + len(items) if place < 0 else place
    return [*items[:place], item, *items[place:]]


@op("SequenceErase")
def sequence_erase(items: list[Any], position: Tensor | None = None) -> list[Any]:
    place = len(items) - 1 if position is None else int(position) % len(items)
    return items[:place] + items[place + 1 :]


@op("SequenceLength")
def sequence_length(items: list[Any]) -> Tensor:
    return torch.tensor(len(items))


@op("SplitToSequence")
def split_to_sequence(
    x: Tensor, sizes: Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> list[Tensor]:
    if sizes is None:
        parts = list(x.split(1, axis))
        return parts if keepdims else [part.squeeze(axis) for part in parts]
    return list(x.split(int(sizes) if sizes.dim() == 0 else sizes.tolist(), axis))


@op("ConcatFromSequence")
def concat_from_sequence(items: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    return torch.stack(items, axis) if new_axis else torch.cat(items, axis)


@op("Optional")
def optional(value: Any = None, *, type: Any = None) -> Any:
    return value


@op("OptionalHasElement")
def optional_has_element(value: Any = None) -> Tensor:
    return torch.tensor(value is not None)


@op("OptionalGetElement")
def optional_get_element(value: Any) -> Any:
    if value is None:
        raise ValueError("the optional is empty")
    return value
