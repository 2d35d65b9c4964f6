"""PP-OCRv6 small: a DBNet text detector (convolutions, ConvTranspose, Resize), 2.5 M parameters.

source:   https://github.com/PaddlePaddle/PaddleOCR (Apache-2.0), as shipped in rapidocr 3.10.0;
          ONNX opset 11, fp32, every axis dynamic
inputs:   x f32[batch, 3, height, width], BGR in -1..1, sides multiples of 32
outputs:  fetch_name_0 f32[batch, 1, height, width]: the probability that a pixel is text
data:     words rendered on photographs, so the true boxes are known
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.data.photographs import CALIBRATION, EVALUATION, crops
from models.data.sentences import sample
from models.weights.packages import package_file

WEIGHTS = (
    "rapidocr",
    "3.10.0",
    "rapidocr/models/PP-OCRv6_det_small.onnx",
    "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
)
DYNAMIC = {"x": {0: "batch", 2: "height", 3: "width"}}
OUTPUTS = ("fetch_name_0",)
SIZE = (320, 320)

Box = tuple[float, float, float, float]


def load() -> Path:
    return package_file(*WEIGHTS)


def example() -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, 3, 320, 320), np.float32)}


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n feeds of one image each, with one to six lines of text."""
    return [{"x": preprocess(image)} for image, _ in images(n, 0)]


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    return [{"x": preprocess(image)} for image, _ in images(n, 1)]


def labelled(n: int) -> list[tuple[np.ndarray, list[Box]]]:
    """The evaluation images with the boxes (left, top, right, bottom) of their lines, in pixels."""
    return [(preprocess(image), boxes) for image, boxes in images(n, 1)]


def images(n: int, part: int) -> list[tuple[Image.Image, list[Box]]]:
    backgrounds = crops(list((CALIBRATION, EVALUATION)[part]), n, SIZE, seed=part + 2)
    lines = sample(n * 6, part=part, seed=1)
    rng = np.random.default_rng(part)
    return [(image, render(image, lines[6 * i : 6 * i + 6], rng))
            for i, image in enumerate(backgrounds)]  # fmt: skip


def render(image: Image.Image, lines: list[str], rng: np.random.Generator) -> list[Box]:
    """Draws some of the lines, each of a random size, place and colour; returns their boxes."""
    draw = ImageDraw.Draw(image)
    boxes: list[Box] = []
    top = rng.uniform(4, 40)
    for line in lines[: rng.integers(1, len(lines) + 1)]:
        size = rng.uniform(14, 34)
        font = ImageFont.load_default(size)
        left = rng.uniform(4, 80)
        text = line[: int((image.width - left) / (0.55 * size))].strip()
        box = draw.textbbox((left, top), text, font=font)
        if box[3] > image.height:
            break
        ink = (0, 0, 0) if rng.random() < 0.5 else (255, 255, 255)
        paper = tuple(255 - c for c in ink)
        draw.text((left, top), text, fill=ink, font=font, stroke_width=1, stroke_fill=paper)
        boxes.append(box)
        top = box[3] + rng.uniform(6, 40)
    return boxes


def preprocess(image: Image.Image) -> np.ndarray:
    """f32[1, 3, height, width] in BGR, pixel / 127.5 - 1."""
    pixels = np.asarray(image.convert("RGB"), np.float32)[:, :, ::-1]
    return (pixels / 127.5 - 1).transpose(2, 0, 1)[None].copy()
