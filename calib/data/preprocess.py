"""The preprocessing text: `resize=256,crop=224,mean=127,std=128,layout=nchw`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ir.errors import DataError

Options = dict[str, str]


@dataclass(frozen=True)
class ImageOptions:
    """How an image becomes an array; applied in the order of the fields.

    resize: pixels of the shorter side, or HxW; crop: pixels from the centre, side or HxW;
    interpolation: bilinear, bicubic, nearest, box, hamming, lanczos; color: rgb, bgr, gray;
    scale: factor on 0..255; mean, std: (x * scale - mean) / std, one number or one per channel
    with '/' between; layout: nchw or nhwc.
    """

    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None
    interpolation: str = "bilinear"
    color: str | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None


@dataclass(frozen=True)
class AudioOptions:
    """How a .wav becomes an array of one channel in [-1, 1).

    rate: Hz to resample to (default: the file's own); length: samples, or seconds as `30s`,
    to cut or pad with silence to.
    """

    rate: int | None = None
    length: str | None = None


@dataclass(frozen=True)
class TextOptions:
    """How text becomes token ids.

    tokenizer: path of a `tokenizers` JSON file; window: tokens per sample; split: `windows` cuts
    each file's tokens into full windows, `lines` makes a sample of every line that is not blank.
    """

    tokenizer: str | None = None
    window: int | None = None
    split: str = "windows"


def parse(text: str | Mapping[str, Any] | None) -> Options:
    """`key=value,key=value` (or a mapping) as a dict of strings; raises DataError."""
    if text is None:
        return {}
    if isinstance(text, Mapping):
        return {str(key): _as_text(value) for key, value in text.items()}
    options: Options = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value or key in options:
            raise DataError(
                f"preprocessing '{part}' is {'said twice' if key in options else 'not key=value'}",
                hint="write it like resize=256,crop=224,mean=127,std=128,layout=nchw",
            )
        options[key] = value
    return options


Parsed = TypeVar("Parsed", ImageOptions, AudioOptions, TextOptions)


def read(kind: type[Parsed], options: Options) -> Parsed:
    """The options of one kind of data; raises DataError on an unknown name or a bad value."""
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        what = kind.__name__.removesuffix("Options").lower()
        raise DataError(
            f"unknown {what} preprocessing '{unknown[0]}'", hint=f"known are {', '.join(known)}"
        )
    return kind(**{key: _value(key, text) for key, text in options.items()})


def _value(key: str, text: str) -> Any:
    try:
        value = _PARSERS.get(key, str)(text)
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(
            f"preprocessing {key}={text} cannot be read", hint=_HINTS.get(key, "give a number")
        ) from error
    choices = _CHOICES.get(key)
    if choices and value not in choices:
        raise DataError(
            f"unknown preprocessing {key}={text}", hint=f"choose one of {', '.join(choices)}"
        )
    return value


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.lower().split("x"))
    if len(sizes) > 2 or min(sizes) < 1:
        raise ValueError(text)
    return sizes


def _number(text: str) -> float:
    """`0.5`, or a fraction as `1/255`."""
    top, slash, bottom = text.partition("/")
    return float(top) / float(bottom) if slash else float(top)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/"))


def _divisors(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if 0.0 in numbers:
        raise ValueError(text)
    return numbers


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_PARSERS: dict[str, Callable[[str], Any]] = {
    "resize": _sizes,
    "crop": _sizes,
    "scale": _number,
    "mean": _numbers,
    "std": _divisors,
    "rate": _positive,
    "window": _positive,
}
_HINTS = {
    "resize": "give pixels, as 256 or 240x320",
    "crop": "give pixels, as 224 or 240x320",
    "mean": "give one number, or one per channel as 123.7/116.3/103.5",
    "std": "give one number that is not 0, or one per channel as 58.4/57.1/57.4",
    "scale": "give a number or a fraction, as 1/255",
}
_CHOICES: dict[str, Collection[str]] = {
    "interpolation": ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
    "color": ("rgb", "bgr", "gray"),
    "layout": ("nchw", "nhwc"),
    "split": ("windows", "lines"),
}


def _as_text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "/".join(str(one) for one in value)
    return str(value) if not isinstance(value, Path) else value.as_posix()
