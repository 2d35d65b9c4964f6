"""The real models do what they were trained for, so their weights and preprocessing are right.

Run by `make test-slow`, which installs their packages.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from ir.errors import DataError
from models import (
    efficientnet_lite0,
    minilm,
    mobilenetv2,
    ppocr_det,
    resnet18,
    terrain_unet,
    whisper_encoder,
)
from models.data import speech
from models.data.photographs import photograph

pytestmark = pytest.mark.slow


def session(path: object) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options)


def test_minilm_tells_related_from_unrelated() -> None:
    feeds = minilm.tokenize(
        ["A man is eating food.", "Someone has a meal.", "The stock market fell sharply."]
    )
    with torch.no_grad():
        hidden = minilm.load()(**{k: torch.from_numpy(v) for k, v in feeds.items()}).numpy()
    a, b, c = minilm.embed(hidden, feeds["attention_mask"])
    assert a @ b > 0.5
    assert abs(a @ c) < 0.2


def test_efficientnet_knows_a_cat_and_a_daisy() -> None:
    net = efficientnet_lite0.load()
    images = [efficientnet_lite0.preprocess(photograph(n)) for n in ("chelsea.png", "flower.jpg")]
    with torch.no_grad():
        cat, flower = net(torch.from_numpy(np.concatenate(images))).argmax(1).tolist()
    assert cat in range(281, 286)  # the domestic cats of ImageNet
    assert flower == 985


def test_ppocr_finds_the_rendered_text() -> None:
    detector = session(ppocr_det.load())
    inside, outside = [], []
    for image, boxes in ppocr_det.labelled(6):
        text = detector.run(None, {"x": image})[0][0, 0] > 0.3
        truth = np.zeros_like(text)
        for left, top, right, bottom in boxes:
            truth[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = True
        inside.append(text[truth].mean())
        outside.append(text[~truth].mean())
    assert np.mean(inside) > 0.35  # DBNet marks the core of a line, shrunk from its box
    assert np.mean(outside) < 0.05


def test_terrain_grows_steeper_with_difficulty() -> None:
    model = session(terrain_unet.load())
    noise = np.random.default_rng(0).standard_normal((6, 1, 128, 128), np.float32) * np.float32(80)

    def slope(label: float) -> float:
        levels = np.full(6, 80, np.float32), np.full(6, label, np.float32)
        feed = dict(zip(terrain_unet.DYNAMIC, (noise, *levels), strict=True))
        heights = terrain_unet.postprocess(model.run(None, feed)[0])
        return float(np.abs(np.diff(heights)).mean())

    assert slope(1.0) > 2 * slope(0.0) > 0


def test_whisper_hears_digits() -> None:
    try:
        recordings = speech.recordings()
    except DataError as error:
        pytest.skip(str(error))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(whisper_encoder.package_file(*whisper_encoder.TOKENIZER)))
    wave = np.concatenate([speech.read(file) for file in recordings if "jackson" in file.name][:6])
    features = torch.from_numpy(whisper_encoder.preprocess(wave))
    net = whisper_encoder.load_full()
    tokens = [50257, 50362]  # <|startoftranscript|><|notimestamps|>
    with torch.no_grad():
        encoded = net.model.encoder(features)
        for _ in range(24):
            logits = net(encoder_outputs=encoded, decoder_input_ids=torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
    text = tokenizer.decode(tokens).lower()
    digits = ("zero", "one", "two", "three", "four", "five", *"012345")
    assert sum(word in text for word in digits) >= 4, text


@pytest.mark.parametrize("model", [resnet18, mobilenetv2], ids=lambda m: m.__name__)
def test_random_networks_keep_their_signal(model) -> None:
    net = model.load()
    with torch.no_grad():
        outputs = [net(torch.from_numpy(feed["image"])) for feed in model.evaluation(2)]
    assert all(0.1 < float(out.std()) < 10 for out in outputs)
    assert (outputs[0] - outputs[1]).std() > 0.05 * outputs[0].std()
