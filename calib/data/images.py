"""Images to arrays, as the model's own preprocessing does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calib.data.preprocess import ImageOptions, Options, read
from calib.data.signature import Feed, Input
from ir.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"})


class Images:
    """Image files as samples of the graph's one input, shape [1, channels, height, width] or
    [1, height, width, channels]. What the input's shape fixes need not be declared.

    raises: DataError when the graph has several inputs, or a float input and neither scale, mean
    nor std declared: pixels of 0..255 in place of what the model was trained on mislead silently.
    """

    def __init__(self, paths: Sequence[Path], inputs: Sequence[Input], options: Options) -> None:
        _need_pillow()
        self.paths = paths
        self.input = _only_image_input(inputs)
        self.options = _complete(read(ImageOptions, options), self.input)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> Iterator[tuple[str, Feed]]:
        for index in indices:
            path = self.paths[index]
            array = to_array(_open(path, self.options), self.options)
            yield str(path), {self.input.name: array[None]}


def _need_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise DataError("images need Pillow", hint="pip install 'ptqc[images]'") from error


def _only_image_input(inputs: Sequence[Input]) -> Input:
    if len(inputs) != 1 or inputs[0].shape is None or len(inputs[0].shape) != 4:
        found = ", ".join(map(str, inputs))
        raise DataError(
            f"images need a graph with one input of rank 4, found {found}",
            hint="prepare the inputs yourself and give an .npz or an iterable of dicts",
        )
    return inputs[0]


def _complete(options: ImageOptions, wanted: Input) -> ImageOptions:
    """Fill what was not declared from the input's shape."""
    _, second, third, last = wanted.shape or (None,) * 4
    layout = options.layout or ("nhwc" if last in (1, 3) and second not in (1, 3) else "nchw")
    nchw = layout == "nchw"
    channels, height, width = (second, third, last) if nchw else (last, second, third)
    color = options.color or ("gray" if channels == 1 else "rgb")
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    resize = options.resize or (None if options.crop else size)
    if wanted.dtype.kind == "f" and (options.scale, options.mean, options.std) == (None,) * 3:
        raise DataError(
            f"no preprocessing is declared for the float input {wanted}",
            hint="say scale, mean and std as in training; scale=1 keeps 0..255",
        )
    channel_count = 1 if color == "gray" else 3
    for key in ("mean", "std"):
        given = getattr(options, key)
        if given and len(given) not in (1, channel_count):
            raise DataError(
                f"{key} has {len(given)} numbers for {channel_count} channels",
                hint="give one, or one per channel",
            )
    return replace(options, layout=layout, color=color, resize=resize)


def _open(path: Path, options: ImageOptions) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("L" if options.color == "gray" else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image cannot be read: {error}", at=path, hint="repair or remove the file"
        ) from error


def to_array(image: Any, options: ImageOptions) -> np.ndarray:
    """A Pillow image (RGB or L) as an array without batch axis: float32, or uint8 if unscaled."""
    image = _crop(_resize(image, options), options)
    array = np.asarray(image)
    array = array[:, :, None] if array.ndim == 2 else array
    if options.color == "bgr":
        array = array[:, :, ::-1]
    if (options.scale, options.mean, options.std) != (None,) * 3:
        scale = 1.0 if options.scale is None else options.scale
        array = (array * scale - (options.mean or (0.0,))) / (options.std or (1.0,))
        array = array.astype(np.float32)
    array = array.transpose(2, 0, 1) if options.layout == "nchw" else array
    return np.ascontiguousarray(array)


def _resize(image: Any, options: ImageOptions) -> Any:
    if options.resize is None:
        return image
    from PIL import Image

    if len(options.resize) == 2:
        height, width = options.resize
    else:
        (side,) = options.resize
        shorter = min(image.size)
        width, height = (round(length * side / shorter) for length in image.size)
    return image.resize((width, height), Image.Resampling[options.interpolation.upper()])


def _crop(image: Any, options: ImageOptions) -> Any:
    if options.crop is None:
        return image
    height, width = options.crop * 2 if len(options.crop) == 1 else options.crop
    left, top = (image.width - width) // 2, (image.height - height) // 2
    if left < 0 or top < 0:
        raise DataError(
            f"crop {height}x{width} is larger than the image {image.height}x{image.width}",
            hint="resize to at least the crop first",
        )
    return image.crop((left, top, left + width, top + height))
